//! Scripts that measure the page in the browser.

/// Lists the texts whose contrast to their ground is less than 4.5 (WCAG 2.2, 1.4.3), with it.
pub const SCRIPT: &str = r"(() => {
    const parse = color => color.match(/[\d.]+/g).map(Number);
    const light = color => {
        const [r, g, b] = color.map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = element => {
        for (let at = element; at; at = at.parentElement) {
            const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
            if (a === 1) return [r, g, b];
            if (a > 0) throw new Error('a ground that shines through: ' + at.outerHTML);
        }
        throw new Error('no ground');
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const poor = [];
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        const text = walker.currentNode.data.trim();
        if (!text || element.closest('svg, noscript') || !element.checkVisibility()) continue;
        const color = parse(getComputedStyle(element).color).slice(0, 3);
        const [a, b] = [light(color), light(ground(element))].sort((a, b) => b - a);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) poor.push([text, ratio.toFixed(2)]);
    }
    return poor;
})()";

/// Describes the element that has the focus: whether it is seen to have it, its name, and its place among
/// all elements.
pub const FOCUSED: &str = r"(() => {
    const element = document.activeElement;
    const label = element.labels?.[0] ?? element;
    const named = element.getAttribute('aria-labelledby');
    const name = element.getAttribute('aria-label')
        ?? (named && document.getElementById(named).textContent) ?? label.textContent;
    const style = getComputedStyle(element);
    return {
        isSeen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
        name: name.trim(),
        place: [...document.querySelectorAll('*')].indexOf(element),
    };
})()";
