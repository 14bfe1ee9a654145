//! teredo.toml(5), from the guide to the configuration.

use std::mem;

use clap_mangen::roff::{Inline, Roff, bold, line_break, roman};
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// The columns of the tables of keys.
const COLUMNS: [&str; 4] = ["key", "default", "permitted", "meaning"];

/// Returns the page for a guide in Markdown. A row of a table of keys becomes a paragraph with the key as
/// its tag; a link becomes its text.
pub fn page(markdown: &str) -> String {
    let mut page = Page::default();
    page.roff.control(
        "TH",
        [
            "TEREDO.TOML",
            "5",
            "",
            concat!("teredo ", env!("CARGO_PKG_VERSION")),
            "Teredo",
        ],
    );
    page.roff.control("SH", ["NAME"]);
    page.roff
        .text([roman("teredo.toml - configuration of the Teredo daemon")]);
    page.roff.control("SH", ["DESCRIPTION"]);
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        page.handle(event);
    }
    page.roff.control("SH", ["SEE ALSO"]);
    page.roff.text([roman("teredo(8)")]);
    page.roff.to_roff()
}

#[derive(Default)]
struct Page {
    roff: Roff,
    /// The paragraph, cell or heading that is being read.
    inlines: Vec<Inline>,
    /// The cells of the row that is being read.
    cells: Vec<Vec<Inline>>,
    /// The depth of emphasis.
    strong: usize,
    in_code: bool,
    /// Whether the rows are of a table of keys.
    has_keys: bool,
}

impl Page {
    fn handle(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.in_code => self.code(&text),
            Event::Text(text) if self.strong > 0 => self.inlines.push(bold(&*text)),
            Event::Text(text) => self.inlines.push(roman(&*text)),
            Event::Code(text) => self.inlines.push(bold(&*text)),
            Event::SoftBreak => self.inlines.push(roman(" ")),
            Event::HardBreak => self.inlines.push(line_break()),
            _ => {}
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Strong | Tag::Emphasis => self.strong += 1,
            Tag::CodeBlock(_) => {
                self.in_code = true;
                self.roff.control("PP", []);
                self.roff.control("EX", []);
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Strong | TagEnd::Emphasis => self.strong -= 1,
            TagEnd::CodeBlock => {
                self.in_code = false;
                self.roff.control("EE", []);
            }
            // The title, for which the page has its own.
            TagEnd::Heading(HeadingLevel::H1) => self.inlines.clear(),
            TagEnd::Heading(_) => {
                let text: String = self.take().iter().map(text_of).collect();
                // Names of sections are as the file has them.
                let title = match text.starts_with('[') {
                    true => text,
                    false => text.to_uppercase(),
                };
                self.roff.control("SH", [title.as_str()]);
            }
            TagEnd::Paragraph => {
                let inlines = self.take();
                self.roff.control("PP", []);
                self.roff.text(inlines);
            }
            TagEnd::Item => {
                let inlines = self.take();
                self.roff.control("IP", ["\\(bu", "2"]);
                self.roff.text(inlines);
            }
            TagEnd::TableCell => {
                let inlines = self.take();
                self.cells.push(inlines);
            }
            TagEnd::TableHead => {
                let titles = mem::take(&mut self.cells).into_iter();
                let titles = titles.map(|cell| cell.iter().map(text_of).collect::<String>());
                self.has_keys = titles.eq(COLUMNS);
            }
            TagEnd::TableRow => self.row(),
            _ => {}
        }
    }

    fn take(&mut self) -> Vec<Inline> {
        mem::take(&mut self.inlines)
    }

    fn code(&mut self, text: &str) {
        for line in text.lines() {
            self.roff.text([roman(line)]);
        }
    }

    fn row(&mut self) {
        let mut cells = mem::take(&mut self.cells).into_iter();
        let mut cell = || cells.next().unwrap_or_default();
        self.roff.control("TP", []);
        self.roff.text(cell());
        if !self.has_keys {
            let mut inlines = cell();
            for more in cells {
                inlines.push(roman("; "));
                inlines.extend(more);
            }
            self.roff.text(inlines);
            return;
        }
        let (default, permitted, meaning) = (cell(), cell(), cell());
        self.roff.text(meaning);
        let mut values = vec![line_break(), roman("Permitted: ")];
        values.extend(permitted);
        values.push(roman(". Default: "));
        values.extend(default);
        values.push(roman("."));
        self.roff.text(values);
    }
}

fn text_of(inline: &Inline) -> &str {
    match inline {
        Inline::Roman(text) | Inline::Italic(text) | Inline::Bold(text) => text,
        Inline::LineBreak => " ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_tags_and_code_keeps_its_lines() {
        let page = page(
            "# Title\n\nText with `code`\nand a [link](other.md).\n\n```toml\n[relay]\nport = 1\n```\n\n\
             ## `[relay]`\n\n| key | default | permitted | meaning |\n|---|---|---|---|\n\
             | `port` | `3545` | 1 to 65535 | The port. |\n\n\
             | verdict | json | meaning | run |\n|---|---|---|---|\n| `ok` | `fine` | Good. | starts |\n",
        );
        let (_, text) = page.split_once(".SH DESCRIPTION\n").unwrap_or_default();
        assert_eq!(
            text,
            ".PP\nText with \\fBcode\\fR and a link.\n.PP\n.EX\n[relay]\nport = 1\n.EE\n\
             .SH [relay]\n.TP\n\\fBport\\fR\nThe port.\n.br\nPermitted: 1 to 65535. \
             Default: \\fB3545\\fR.\n.TP\n\\fBok\\fR\n\\fBfine\\fR; Good.; starts\n.SH \"SEE ALSO\"\nteredo(8)\n"
        );
    }

    #[test]
    fn every_key_of_the_guide_is_in_the_page() {
        let page = page(crate::CONFIGURATION);
        for key in teredo::config::keys::KEYS {
            let tag = format!(".TP\n\\fB{}\\fR\n", key.name.replace('-', "\\-"));
            assert!(page.contains(&tag), "{}.{}", key.section, key.name);
        }
    }
}
