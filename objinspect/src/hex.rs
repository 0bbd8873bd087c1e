//! The dump of raw bytes.

use std::io::{self, BufReader, Write};

use hexyl::{BorderStyle, PrinterBuilder};

use crate::input::Input;

/// Writes the whole input as a hex dump; runs of equal lines are squeezed to one `*`.
///
/// # Errors
/// Those of reading and writing.
pub fn dump(input: &Input, color: bool, out: &mut impl Write) -> io::Result<()> {
    let border = if color { BorderStyle::Unicode } else { BorderStyle::Ascii };
    let mut printer = PrinterBuilder::new(out)
        .show_color(color)
        .show_char_panel(true)
        .show_position_panel(true)
        .with_border_style(border)
        .enable_squeezing(true)
        .num_panels(2)
        .build();
    printer.print_all(BufReader::with_capacity(1 << 20, input.reader()))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_dump_shows_positions_bytes_and_characters() {
        let mut bytes = b"LSVDobj\x01".to_vec();
        bytes.resize(4096, 0);
        bytes.push(0xff);
        let mut out = Vec::new();
        dump(&Input::memory("x".into(), bytes), false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("4c 53 56 44 6f 62 6a 01"), "{text}");
        assert!(text.contains("LSVDobj"), "{text}");
        assert!(text.contains("00001000"), "{text}");
        assert!(text.lines().count() < 10, "zeros are squeezed: {text}");
    }
}
