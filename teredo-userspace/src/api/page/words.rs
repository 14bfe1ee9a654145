//! Texts with Markdown on the page.

use maud::{Markup, html};

use crate::metrics::meaning::without_links;

/// Shows Markdown of the documentation: code as such, and of links the text.
pub fn render(markdown: &str) -> Markup {
    with_code(&without_links(markdown))
}

/// Shows a text with its commands and names between backticks as such.
pub fn with_code(text: &str) -> Markup {
    html! {
        @for (number, part) in text.split('`').enumerate() {
            @if number % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_is_shown_without_its_signs() {
        let text = render("As `a<b`, see [the budget](x.md#y) [sic] & [more](z).").into_string();
        let expected = "As <code>a&lt;b</code>, see the budget [sic] &amp; more.";
        assert_eq!(text, expected);
    }
}
