//! Finds where a JSON value ends in a stream of bytes, and refuses what can never become one.
//!
//! Requests carry neither a length nor a newline, so the end of the value is the end of the
//! request. The grammar is checked as bytes arrive: a peer that speaks something else is found out
//! at its first wrong byte, and not when it has filled a buffer.
//!
//! Does not: check that text is UTF-8, or that escaped surrogates pair up; the parser does.
//! Invariants: how the stream is cut makes no difference; a byte is looked at once.

use crate::limits::{NESTING_MAX, REQUEST_BYTES_MAX, REQUEST_VALUES_MAX};

/// Cuts a stream of bytes into JSON values.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Bytes of the buffer that have been looked at.
    seen: usize,
    state: State,
    /// One bit for each open container, the innermost lowest; set for objects.
    open: u64,
    depth: u32,
    values: usize,
}

/// Why no request can follow on this stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A byte that no JSON value has here.
    #[error("not JSON")]
    Malformed,
    /// More than [`REQUEST_BYTES_MAX`].
    #[error("request of more than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    /// More than [`REQUEST_VALUES_MAX`].
    #[error("request of more than {REQUEST_VALUES_MAX} values")]
    TooManyValues,
    /// More than [`NESTING_MAX`].
    #[error("request is nested more than {NESTING_MAX} deep")]
    TooDeep,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// White space before a value of its own.
    #[default]
    Before,
    /// A value.
    Value,
    /// A value, or the end of an empty array.
    FirstElement,
    /// A name, or the end of an empty object.
    FirstName,
    /// A name.
    Name,
    /// The colon behind a name.
    Colon,
    /// A comma or the end of a container.
    Next,
    /// A string or a name.
    Text {
        name: bool,
        escape: Escape,
    },
    /// The rest of `true`, `false` or `null`.
    Word(&'static [u8]),
    Number(Number),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    /// The byte behind a backslash.
    Letter,
    /// So many hexadecimal digits to come.
    Hex(u8),
}

/// Where a number is. It can end after `Zero`, `Integer`, `Fraction` and `Exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

/// What a byte did.
enum Step {
    More,
    /// The value of its own ended with this byte.
    Done,
    /// The value of its own had ended before this byte.
    DoneBefore,
}

impl Framer {
    /// Takes bytes off the socket.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole value, without white space around it; none if there must come more bytes.
    ///
    /// After an error there is no way to tell where the next request starts.
    pub fn next_value(&mut self) -> Result<Option<Vec<u8>>, FramingError> {
        if self.state == State::Before {
            let spaces = self.buffer.iter().take_while(|byte| is_space(**byte)).count();
            self.buffer.drain(..spaces);
        }
        while let Some(&byte) = self.buffer.get(self.seen) {
            if self.seen >= REQUEST_BYTES_MAX {
                return Err(FramingError::TooLong);
            }
            match self.step(byte)? {
                Step::More => self.seen += 1,
                Step::Done => return Ok(Some(self.take(self.seen + 1))),
                Step::DoneBefore => return Ok(Some(self.take(self.seen))),
            }
        }
        Ok(None)
    }

    /// The value that the end of the stream completes: only a bare number can be one.
    #[must_use]
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        match self.state {
            State::Number(number) if number.is_whole() && self.depth == 0 => {
                Some(self.take(self.seen))
            }
            _ => None,
        }
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(len);
        let value = std::mem::replace(&mut self.buffer, rest);
        (self.seen, self.values, self.state) = (0, 0, State::Before);
        value
    }

    fn step(&mut self, byte: u8) -> Result<Step, FramingError> {
        use FramingError::Malformed;
        match self.state {
            State::Before | State::Value => self.start_value(byte),
            State::FirstElement if byte == b']' => self.close(),
            State::FirstElement => self.start_value(byte),
            State::FirstName if byte == b'}' => self.close(),
            State::FirstName | State::Name => match byte {
                b'"' => self.start(State::Text { name: true, escape: Escape::None }),
                _ => space(byte),
            },
            State::Colon if byte == b':' => self.go_on(State::Value),
            State::Colon => space(byte),
            State::Next => match byte {
                b',' if self.in_object() => self.go_on(State::Name),
                b',' => self.go_on(State::Value),
                b'}' if self.in_object() => self.close(),
                b']' if !self.in_object() => self.close(),
                _ => space(byte),
            },
            State::Text { name, escape } => self.text(byte, name, escape),
            State::Word(rest) => match rest {
                [next, rest @ ..] if *next == byte && rest.is_empty() => Ok(self.end_value()),
                [next, rest @ ..] if *next == byte => self.go_on(State::Word(rest)),
                _ => Err(Malformed),
            },
            State::Number(number) => match number.next(byte) {
                Some(number) => self.go_on(State::Number(number)),
                None if !number.is_whole() => Err(Malformed),
                None if self.depth == 0 => Ok(Step::DoneBefore),
                None => {
                    self.state = State::Next;
                    self.step(byte)
                }
            },
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is what a step returns")]
    fn go_on(&mut self, state: State) -> Result<Step, FramingError> {
        self.state = state;
        Ok(Step::More)
    }

    /// Like `go_on`, for what counts as a value.
    fn start(&mut self, state: State) -> Result<Step, FramingError> {
        self.values += 1;
        if self.values > REQUEST_VALUES_MAX {
            return Err(FramingError::TooManyValues);
        }
        self.go_on(state)
    }

    fn start_value(&mut self, byte: u8) -> Result<Step, FramingError> {
        let state = match byte {
            b'{' => {
                self.open_container(true)?;
                State::FirstName
            }
            b'[' => {
                self.open_container(false)?;
                State::FirstElement
            }
            b'"' => State::Text { name: false, escape: Escape::None },
            b't' => State::Word(b"rue"),
            b'f' => State::Word(b"alse"),
            b'n' => State::Word(b"ull"),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Integer),
            _ => return space(byte),
        };
        self.start(state)
    }

    fn open_container(&mut self, object: bool) -> Result<(), FramingError> {
        if self.depth == NESTING_MAX {
            return Err(FramingError::TooDeep);
        }
        self.open = self.open << 1 | u64::from(object);
        self.depth += 1;
        Ok(())
    }

    fn in_object(&self) -> bool {
        self.open & 1 == 1
    }

    fn close(&mut self) -> Result<Step, FramingError> {
        self.open >>= 1;
        self.depth -= 1;
        self.start(State::Next)?;
        Ok(self.end_value())
    }

    fn end_value(&mut self) -> Step {
        self.state = State::Next;
        if self.depth == 0 { Step::Done } else { Step::More }
    }

    fn text(&mut self, byte: u8, name: bool, escape: Escape) -> Result<Step, FramingError> {
        let escape = match (escape, byte) {
            (Escape::None, b'"') if name => return self.go_on(State::Colon),
            (Escape::None, b'"') => return Ok(self.end_value()),
            (Escape::None, b'\\') => Escape::Letter,
            (Escape::None, 0x20..)
            | (Escape::Letter, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                Escape::None
            }
            (Escape::Letter, b'u') => Escape::Hex(4),
            (Escape::Hex(1), _) if byte.is_ascii_hexdigit() => Escape::None,
            (Escape::Hex(left), _) if byte.is_ascii_hexdigit() => Escape::Hex(left - 1),
            _ => return Err(FramingError::Malformed),
        };
        self.go_on(State::Text { name, escape })
    }
}

impl Number {
    /// The number with one more byte; none if it ends before.
    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Integer, b'0'..=b'9') => Self::Integer,
            (Self::Zero | Self::Integer, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Self::E,
            (Self::E, b'+' | b'-') => Self::Sign,
            (Self::E | Self::Sign | Self::Exponent, b'0'..=b'9') => Self::Exponent,
            _ => return None,
        })
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Integer | Self::Fraction | Self::Exponent)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// White space changes nothing; anything else does not belong here.
fn space(byte: u8) -> Result<Step, FramingError> {
    if is_space(byte) { Ok(Step::More) } else { Err(FramingError::Malformed) }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// What comes out of a stream that is cut into the given pieces.
    fn frames<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<Vec<u8>>, Option<FramingError>) {
        let (mut framer, mut values) = (Framer::default(), Vec::new());
        for piece in pieces {
            framer.push(piece);
            loop {
                match framer.next_value() {
                    Ok(Some(value)) => values.push(value),
                    Ok(None) => break,
                    Err(error) => return (values, Some(error)),
                }
            }
        }
        values.extend(framer.finish());
        (values, None)
    }

    fn texts(stream: &str) -> Vec<String> {
        let (values, error) = frames([stream.as_bytes()]);
        assert_eq!(error, None, "{stream}");
        values.into_iter().map(|value| String::from_utf8(value).unwrap()).collect()
    }

    fn refusal(stream: &[u8]) -> FramingError {
        frames([stream]).1.expect("an error")
    }

    #[test]
    fn values_may_touch_or_stand_apart() {
        assert_eq!(texts("{\"a\":[1,{}]}{}\n\n [] "), ["{\"a\":[1,{}]}", "{}", "[]"]);
        assert_eq!(
            texts("12{} -0.5e+3 \"x\\\"}\"null true"),
            ["12", "{}", "-0.5e+3", "\"x\\\"}\"", "null", "true"]
        );
    }

    #[test]
    fn number_at_the_end_of_the_stream_is_a_value() {
        assert_eq!(texts(" 12"), ["12"]);
        assert_eq!(texts(" 12."), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_json_is_refused_at_its_first_wrong_byte() {
        let wrong = [
            "G",
            "/",
            "{a",
            "{]",
            "[}",
            "{,",
            "[,",
            "{\"a\" 1",
            "[1 2",
            "{\"a\":tru_",
            "[01",
            "[1.]",
            "[-a",
            "[1e]",
            "\"\n",
            "\"\\x",
            "\"\\u12G",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\":1]",
        ];
        for stream in wrong {
            assert_eq!(refusal(stream.as_bytes()), FramingError::Malformed, "{stream}");
            let all_but_the_last = &stream.as_bytes()[..stream.len() - 1];
            assert_eq!(frames([all_but_the_last]).1, None, "{stream}");
        }
    }

    #[test]
    fn limits_are_reached_and_not_passed() {
        let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        assert_eq!(texts(&nested(64)).len(), 1);
        assert_eq!(refusal(nested(65).as_bytes()), FramingError::TooDeep);

        let many = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert_eq!(texts(&many(REQUEST_VALUES_MAX - 2)).len(), 1);
        let too_many = many(REQUEST_VALUES_MAX - 1);
        assert_eq!(refusal(too_many.as_bytes()), FramingError::TooManyValues);

        let long = |len: usize| format!("\n\"{}\"", "x".repeat(len - 2));
        assert_eq!(texts(&long(REQUEST_BYTES_MAX)).len(), 1);
        assert_eq!(refusal(long(REQUEST_BYTES_MAX + 1).as_bytes()), FramingError::TooLong);
    }

    /// Text that is often JSON.
    fn stream() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("{\"a\":"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just("\"x\\u00e9\""),
            Just("-1.5e3"),
            Just("0"),
            Just("true"),
            Just("null"),
            Just(" "),
            Just("\n"),
            Just("{}"),
            Just("{\"id\":7}"),
            Just("\\"),
            Just("\""),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(stream in stream()) {
            let whole = frames([stream.as_bytes()]);
            prop_assert_eq!(&frames(stream.as_bytes().chunks(1)), &whole);
            for cut in 0..=stream.len() {
                let (a, b) = stream.as_bytes().split_at(cut);
                prop_assert_eq!(&frames([a, b]), &whole);
            }
        }

        #[test]
        fn one_value_is_one_for_the_parser_too(stream in stream()) {
            let parsed: Result<&RawValue, _> = serde_json::from_str(&stream);
            let (values, error) = frames([stream.as_bytes()]);
            let is_one = error.is_none()
                && values.len() == 1
                && values[0] == stream.trim().as_bytes();
            prop_assert_eq!(is_one, parsed.is_ok(), "{} {:?} {:?}", stream, values, error);
        }

        #[test]
        fn noise_is_survived(noise in prop::collection::vec(any::<u8>(), 0..64)) {
            frames(noise.chunks(3));
        }
    }
}
