//! One picture as text.

use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};

use super::{
    draw::{Theme, draw},
    model::Model,
};

/// The size of a picture without a terminal.
const SIZE: (u16, u16) = (120, 40);

/// Returns a picture as lines of text, as wide as the terminal.
pub fn text(model: &Model, theme: &Theme) -> String {
    let (width, height) = crossterm::terminal::size().unwrap_or(SIZE);
    let (width, height) = match (width, height) {
        (0, _) | (_, 0) => SIZE,
        size => size,
    };
    picture(model, theme, width, height)
}

/// Returns a picture of this size.
pub fn picture(model: &Model, theme: &Theme, width: u16, height: u16) -> String {
    // Memory cannot fail.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(frame) = terminal.draw(|frame| draw(frame, model, theme));
    lines(frame.buffer)
}

/// Returns the lines of a picture, without spaces at their ends.
pub fn lines(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let cells = (buffer.area.left()..buffer.area.right()).map(|x| buffer[(x, y)].symbol());
        text += cells.collect::<String>().trim_end();
        text.push('\n');
    }
    text
}
