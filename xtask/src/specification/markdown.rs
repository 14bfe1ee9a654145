//! The parts of Markdown that the specification is made of.

/// A line of a document outside of code blocks, with its number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'t> {
    /// Its number.
    pub number: usize,
    /// Its text.
    pub text: &'t str,
    /// Whether it stands in a code block.
    pub is_code: bool,
}

/// The lines of a document, without the fences of code blocks.
pub fn lines(text: &str) -> Vec<Line<'_>> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for (index, text) in text.lines().enumerate() {
        if text.starts_with("```") {
            is_code = !is_code;
        } else {
            lines.push(Line {
                number: index + 1,
                text,
                is_code,
            });
        }
    }
    lines
}

/// The cells of a row of a table, trimmed; `None` for other lines and for the line below a head.
pub fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix('|')?.trim_end().strip_suffix('|')?;
    let is_rule = row.chars().all(|character| "-:| ".contains(character));
    (!is_rule).then(|| row.split('|').map(str::trim).collect())
}

/// The texts between backticks.
pub fn literals(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The first sentence of a text.
pub fn first_sentence(text: &str) -> &str {
    let end = text.match_indices(". ").map(|(end, _)| end).find(|&end| {
        // Abbreviations have no capital after them.
        text[end + 2..].starts_with(|next: char| next.is_uppercase() || next == '`')
    });
    end.map_or(text, |end| &text[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_from_text() {
        let lines = lines("a\n```\nb\n```\nc");
        let expected = [(1, "a", false), (3, "b", true), (5, "c", false)];
        let found = lines
            .iter()
            .map(|line| (line.number, line.text, line.is_code));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn rows_have_cells() {
        assert_eq!(cells("| a | b `c` | |"), Some(vec!["a", "b `c`", ""]));
        assert_eq!(cells("|---|:--|"), None);
        assert_eq!(cells("text | text"), None);
    }

    #[test]
    fn literals_stand_in_backticks() {
        assert_eq!(literals("a `b` c `d`").collect::<Vec<_>>(), ["b", "d"]);
    }

    #[test]
    fn sentences_end_before_a_capital() {
        assert_eq!(first_sentence("One, e.g. two. Three."), "One, e.g. two.");
        assert_eq!(first_sentence("Only one."), "Only one.");
    }
}
