//! Terminals that show nothing but ASCII.

use ratatui::buffer::Buffer;

/// Replaces every character that is not ASCII by one that looks similar.
pub fn replace(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if cell.symbol().is_ascii() {
            continue;
        }
        let first = cell.symbol().chars().next().unwrap_or(' ');
        cell.set_char(similar(first));
    }
}

const fn similar(character: char) -> char {
    match character {
        '─' | '━' | '–' => '-',
        '│' | '┃' => '|',
        '╭' | '╮' | '╰' | '╯' | '├' | '┤' | '┬' | '┴' | '┼' => '+',
        '▁' | '▂' => '.',
        '▃' | '▄' => ':',
        '▅' | '▆' => '+',
        '▇' | '█' => '#',
        '…' => '~',
        '·' | '░' => '.',
        '↑' => '^',
        '↓' => 'v',
        '●' => '*',
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_ascii_is_left() {
        let mut buffer = Buffer::with_lines(["╭─ é ▁▄█ …"]);
        replace(&mut buffer);
        assert_eq!(buffer, Buffer::with_lines(["+- ? .:# ~"]));
    }
}
