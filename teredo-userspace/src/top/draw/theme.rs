//! Colours and characters.

use ratatui::{
    style::{Color, Modifier, Style},
    text::Span,
    widgets::{Block, BorderType},
};

use crate::condition::Severity;

/// What the terminal can show. Colours are those of its own palette, so that dark and light ones do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Whether there are colours.
    pub has_colour: bool,
    /// Whether there are more characters than those of ASCII.
    pub is_unicode: bool,
}

impl Theme {
    /// No colours, and nothing but ASCII.
    pub const PLAIN: Self = Self {
        has_colour: false,
        is_unicode: false,
    };

    /// Returns the theme that an environment asks for: `NO_COLOR`, and the locale.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        // The first that is set counts (POSIX).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let locale = locale.unwrap_or_default().to_lowercase();
        Self {
            has_colour: set("NO_COLOR").is_none(),
            is_unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    fn colour(self, colour: Color) -> Style {
        match self.has_colour {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    /// Numbers and names that matter.
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Titles of columns, and what is less important.
    pub fn faint(self) -> Style {
        match self.has_colour {
            true => Style::new().add_modifier(Modifier::DIM),
            false => Style::new(),
        }
    }

    /// Something in order.
    pub fn good(self) -> Style {
        self.colour(Color::Green)
    }

    /// Something to look at.
    pub fn warning(self) -> Style {
        self.colour(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// Something that does not work.
    pub fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Packets to clients.
    pub fn encap(self) -> Style {
        self.colour(Color::Cyan)
    }

    /// Packets from clients.
    pub fn decap(self) -> Style {
        self.colour(Color::Green)
    }

    /// The selected line.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A severity.
    pub fn severity(self, severity: Severity) -> Style {
        match severity {
            Severity::Degraded => self.warning(),
            Severity::Down => self.bad(),
        }
    }

    /// Returns a frame with a title. That of the list which has the keys stands out.
    pub fn block(self, title: &str, has_keys: bool) -> Block<'static> {
        let block = Block::bordered().border_type(BorderType::Rounded);
        let style = match has_keys {
            true => self.colour(Color::Cyan),
            false => self.faint(),
        };
        let mark = self.strong().remove_modifier(Modifier::DIM);
        let title = Span::styled(format!(" {title} "), mark);
        block.border_style(style).title(title)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_on_colours_and_characters() {
        for (variables, has_colour, is_unicode) in [
            (&[][..], true, false),
            (&[("LANG", "C.UTF-8")], true, true),
            (&[("LANG", "de_DE.utf8"), ("LC_ALL", "C")], true, false),
            (&[("LC_CTYPE", "en_US.UTF-8"), ("LC_ALL", "")], true, true),
            (&[("NO_COLOR", "1"), ("LANG", "POSIX")], false, false),
            (&[("NO_COLOR", "")], true, false),
        ] {
            let variable = |name: &str| {
                let found = variables.iter().find(|(present, _)| *present == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let expected = Theme {
                has_colour,
                is_unicode,
            };
            assert_eq!(Theme::of_environment(variable), expected, "{variables:?}");
        }
    }
}
