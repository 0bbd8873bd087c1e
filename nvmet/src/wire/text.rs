//! Text in fixed-size fields.

/// Left-justified and filled with `fill`; what does not fit is cut off at a character.
pub(crate) fn padded<const N: usize>(text: &str, fill: u8) -> [u8; N] {
    let mut field = [fill; N];
    let mut len = text.len().min(N);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
    field
}

/// Up to the first NUL and without trailing blanks; `None` unless that is UTF-8.
pub(crate) fn trimmed(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    std::str::from_utf8(&field[..end]).ok().map(|text| text.trim_end_matches(' '))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_field_is_filled_and_read_back() {
        assert_eq!(padded::<6>("ab", b' '), *b"ab    ");
        assert_eq!(padded::<4>("ab", 0), *b"ab\0\0");
        assert_eq!(trimmed(b"ab    "), Some("ab"));
        assert_eq!(trimmed(b"ab\0cd"), Some("ab"));
        assert_eq!(trimmed(b"\xff"), None);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(padded::<3>("abcdef", b' '), *b"abc");
        assert_eq!(padded::<3>("ab\u{e9}", b' '), *b"ab ");
    }
}
