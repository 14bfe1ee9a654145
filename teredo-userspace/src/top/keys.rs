//! Keys and what they do.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What the program around the model has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the view.
    Quit,
    /// Stop the process, as the shell's Ctrl-Z does.
    Suspend,
    /// Draw everything anew.
    Redraw,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Something outside of the model.
    Act(Action),
    /// Show or hide the keys.
    Help,
    /// Show a view, by its number.
    Show(usize),
    /// Give the keys to the next list.
    NextList,
    /// Move the selection by lines.
    Move(isize),
    /// Move the selection by pages.
    MovePage(isize),
    /// Move the selection to the first or the last line.
    MoveToEnd { last: bool },
    /// Open the selected line.
    Open,
    /// Close what is open.
    Close,
    /// Sort by the next order.
    Sort,
    /// Sort the other way round.
    Reverse,
    /// Type a filter.
    Filter,
    /// Stop and continue.
    Pause,
}

/// The keys, as the help shows them.
pub const HELP: &[(&str, &str)] = &[
    ("1 2 3 4", "overview, peers, drops, roles"),
    ("Tab", "the keys go to the next list"),
    ("arrows, j k", "select; PgUp PgDn Home End go far"),
    ("Enter", "open the selected peer or reason"),
    ("Esc", "close, or remove the filter"),
    ("s", "sort by traffic, total, last heard, address"),
    ("r", "sort the other way round"),
    ("/", "filter peers: a prefix, an endpoint, trusted,"),
    ("", "untrusted, xdp, daemon, or part of an address"),
    ("Space", "pause and go on"),
    ("Ctrl-L", "draw anew"),
    ("q, Ctrl-C", "end; Ctrl-Z to the shell"),
];

/// Returns the command of a key, while no text is typed.
pub fn command(key: KeyEvent) -> Option<Command> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Command::Act(Action::Quit)),
            KeyCode::Char('z') => Some(Command::Act(Action::Suspend)),
            KeyCode::Char('l') => Some(Command::Act(Action::Redraw)),
            _ => None,
        };
    }
    Some(match key.code {
        KeyCode::Char('q') => Command::Act(Action::Quit),
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Command::Help,
        KeyCode::Char(digit @ '1'..='4') => Command::Show(digit as usize - '1' as usize),
        KeyCode::Tab | KeyCode::BackTab => Command::NextList,
        KeyCode::Down | KeyCode::Char('j') => Command::Move(1),
        KeyCode::Up | KeyCode::Char('k') => Command::Move(-1),
        KeyCode::PageDown => Command::MovePage(1),
        KeyCode::PageUp => Command::MovePage(-1),
        KeyCode::Home | KeyCode::Char('g') => Command::MoveToEnd { last: false },
        KeyCode::End | KeyCode::Char('G') => Command::MoveToEnd { last: true },
        KeyCode::Enter => Command::Open,
        KeyCode::Esc | KeyCode::Backspace => Command::Close,
        KeyCode::Char('s') => Command::Sort,
        KeyCode::Char('r') => Command::Reverse,
        KeyCode::Char('/') => Command::Filter,
        KeyCode::Char(' ' | 'p') => Command::Pause,
        _ => return None,
    })
}
