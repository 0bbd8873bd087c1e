//! Option haggling without sockets: bytes in, replies out, in the end an export and its terms.
//!
//! Does not: know TLS (NBD_OPT_STARTTLS gets NBD_REP_ERR_UNSUP, "NOTLS mode") or the old handshake.
//! Invariants: 1. One option is answered at a time, so that replies wait for the peer to read
//! them. 2. `OPTION_BYTES_MAX` of option data are held at most.

use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};

use crate::error::Violation;
use crate::export::{Export, ExportInfo, Exports};
use crate::limits::{NAME_BYTES_MAX, OPTION_BYTES_MAX, OPTION_SKIP_MAX};
use crate::reply::{ALLOCATION_ID, Style};
use crate::session::Terms;
use crate::wire::{
    INIT_MAGIC, OPTION_MAGIC, OptionHeader, OptionKind, OptionReply, handshake_flag, info,
    put_option_reply, transmission_flag,
};

/// The only metadata context that is served.
const ALLOCATION: &str = "base:allocation";
/// Selects all of its namespace, for NBD_OPT_LIST_META_CONTEXT only.
const BASE_WILDCARD: &str = "base:";

/// One connection before its transmission phase.
#[derive(Debug)]
pub(crate) struct Handshake {
    state: State,
    fixed: bool,
    zeroes: bool,
    style: Style,
    /// `base:allocation` was selected for the export of this name.
    allocation_for: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    ClientFlags,
    Option,
    Data(OptionHeader),
    Skip { number: u32, left: u32 },
}

/// Where the handshake stands after some input.
pub(crate) enum Progress {
    /// More bytes are needed.
    Starved,
    /// Something was consumed; send what there is to send, then go on.
    Moved,
    /// The transmission phase begins.
    Agreed(Arc<dyn Export>, Terms),
    /// NBD_OPT_ABORT: send what there is to send, then close.
    Aborted,
}

/// Why an option is answered with an error.
type Refusal = OptionReply;

impl Handshake {
    /// Starts with what the server says first ("Newstyle negotiation").
    pub(crate) fn start(out: &mut BytesMut) -> Self {
        out.put_u64(INIT_MAGIC);
        out.put_u64(OPTION_MAGIC);
        out.put_u16(handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES);
        Self {
            state: State::ClientFlags,
            fixed: false,
            zeroes: true,
            style: Style::Simple,
            allocation_for: None,
        }
    }

    /// Whether the stream is between two messages, as far as it has been consumed.
    pub(crate) fn is_between_messages(&self) -> bool {
        matches!(self.state, State::ClientFlags | State::Option)
    }

    /// Consumes one step of `input` and appends the answer to `out`.
    pub(crate) fn advance(
        &mut self,
        input: &mut BytesMut,
        exports: &dyn Exports,
        out: &mut BytesMut,
    ) -> Result<Progress, Violation> {
        match self.state {
            State::ClientFlags => {
                let Ok(flags) = (&input[..]).try_get_u32() else { return Ok(Progress::Starved) };
                input.advance(4);
                self.client_flags(flags)?;
            }
            State::Option => {
                let Some(head) = input.first_chunk() else { return Ok(Progress::Starved) };
                let header =
                    OptionHeader::parse(head).map_err(|found| Violation::OptionMagic { found })?;
                input.advance(OptionHeader::BYTES);
                self.state = self.option(header)?;
            }
            State::Data(header) => {
                if input.len() < header.len as usize {
                    return Ok(Progress::Starved);
                }
                let data = input.split_to(header.len as usize);
                self.state = State::Option;
                return self.answer(header.number, &data, exports, out);
            }
            State::Skip { number, left } => {
                let take = (left as usize).min(input.len());
                input.advance(take);
                let left = left - u32::try_from(take).expect("no more than left");
                if left > 0 {
                    self.state = State::Skip { number, left };
                    return Ok(Progress::Starved);
                }
                self.state = State::Option;
                put_option_reply(out, number, OptionReply::TooBig, &[]);
            }
        }
        Ok(Progress::Moved)
    }

    fn client_flags(&mut self, flags: u32) -> Result<(), Violation> {
        let offered = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
        if flags & !u32::from(offered) != 0 {
            return Err(Violation::ClientFlags { found: flags });
        }
        self.fixed = flags & u32::from(handshake_flag::FIXED_NEWSTYLE) != 0;
        self.zeroes = flags & u32::from(handshake_flag::NO_ZEROES) == 0;
        self.state = State::Option;
        Ok(())
    }

    fn option(&self, OptionHeader { number, len }: OptionHeader) -> Result<State, Violation> {
        let is_export_name = OptionKind::parse(number) == Some(OptionKind::ExportName);
        if !self.fixed && !is_export_name {
            return Err(Violation::NotFixedNewstyle { number });
        }
        if len <= OPTION_BYTES_MAX {
            return Ok(State::Data(OptionHeader { number, len }));
        }
        // NBD_OPT_EXPORT_NAME has no error reply, so there is nothing to wait for.
        if len > OPTION_SKIP_MAX || is_export_name {
            return Err(Violation::OptionLength { number, len });
        }
        Ok(State::Skip { number, left: len })
    }

    fn answer(
        &mut self,
        number: u32,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut BytesMut,
    ) -> Result<Progress, Violation> {
        let Some(kind) = OptionKind::parse(number) else {
            put_option_reply(out, number, OptionReply::Unsupported, &[]);
            return Ok(Progress::Moved);
        };
        let outcome = match kind {
            OptionKind::ExportName => return self.export_name(data, exports, out),
            // Data of NBD_OPT_ABORT is ignored: the peer is leaving, and arguing is no use.
            OptionKind::Abort => {
                put_option_reply(out, number, OptionReply::Ack, &[]);
                return Ok(Progress::Aborted);
            }
            OptionKind::List => list(data, exports, number, out),
            OptionKind::Info => self.information(data, exports, number, out).map(|_| ()),
            OptionKind::Go => match self.information(data, exports, number, out) {
                Ok((name, export, info)) => {
                    put_option_reply(out, number, OptionReply::Ack, &[]);
                    return Ok(self.agree(&name, export, info));
                }
                Err(refusal) => Err(refusal),
            },
            OptionKind::StructuredReply if data.is_empty() => {
                self.style = Style::Structured;
                Ok(())
            }
            OptionKind::StructuredReply => Err(OptionReply::Invalid),
            OptionKind::ListMetaContext => self.list_contexts(data, exports, number, out),
            OptionKind::SetMetaContext => self.set_contexts(data, exports, number, out),
        };
        let last = outcome.err().unwrap_or(OptionReply::Ack);
        put_option_reply(out, number, last, &[]);
        Ok(Progress::Moved)
    }

    fn agree(&self, name: &str, export: Arc<dyn Export>, info: ExportInfo) -> Progress {
        let allocation = self.allocation_for.as_deref() == Some(name);
        Progress::Agreed(export, Terms { info, style: self.style, allocation })
    }

    fn export_name(
        &self,
        data: &[u8],
        exports: &dyn Exports,
        out: &mut BytesMut,
    ) -> Result<Progress, Violation> {
        let name = str::from_utf8(data).map_err(|_| Violation::UnknownExport)?;
        let export = resolve(name, exports).ok_or(Violation::UnknownExport)?;
        let info = export.info();
        out.put_u64(info.size);
        out.put_u16(transmission_flags(&info, self.style));
        if self.zeroes {
            out.put_bytes(0, 124);
        }
        Ok(self.agree(name, export, info))
    }

    /// NBD_OPT_INFO and NBD_OPT_GO up to their last reply. Returns the name as it was asked for.
    fn information(
        &self,
        mut data: &[u8],
        exports: &dyn Exports,
        number: u32,
        out: &mut BytesMut,
    ) -> Result<(String, Arc<dyn Export>, ExportInfo), Refusal> {
        let name = take_string(&mut data)?;
        let count = data.try_get_u16().map_err(|_| OptionReply::Invalid)?;
        if data.len() != usize::from(count) * 2 {
            return Err(OptionReply::Invalid);
        }
        let is_wanted = |kind: u16| data.chunks_exact(2).any(|wanted| wanted == kind.to_be_bytes());
        let export = resolve(name, exports).ok_or(OptionReply::Unknown)?;
        let info = export.info();
        let mut put = |kind: u16, payload: &[&[u8]]| {
            let kind = kind.to_be_bytes();
            let parts: Vec<&[u8]> =
                [&kind[..]].into_iter().chain(payload.iter().copied()).collect();
            put_option_reply(out, number, OptionReply::Info, &parts);
        };
        let flags = transmission_flags(&info, self.style);
        put(info::EXPORT, &[&info.size.to_be_bytes(), &flags.to_be_bytes()]);
        if is_wanted(info::NAME) {
            put(info::NAME, &[info.name.as_bytes()]);
        }
        if is_wanted(info::DESCRIPTION) && !info.description.is_empty() {
            put(info::DESCRIPTION, &[info.description.as_bytes()]);
        }
        if is_wanted(info::BLOCK_SIZE) {
            let sizes = info.block_sizes;
            let sizes = [sizes.minimum(), sizes.preferred(), sizes.payload_max()];
            put(info::BLOCK_SIZE, &sizes.map(u32::to_be_bytes).each_ref().map(|size| &size[..]));
        }
        Ok((name.to_owned(), export, info))
    }

    fn list_contexts(
        &self,
        data: &[u8],
        exports: &dyn Exports,
        number: u32,
        out: &mut BytesMut,
    ) -> Result<(), Refusal> {
        let query = ContextQuery::parse(data, self.style)?;
        resolve(query.export, exports).ok_or(OptionReply::Unknown)?;
        if query.is_empty || query.names_allocation || query.names_base {
            // The id is reserved here and should be zero.
            put_context(out, number, 0);
        }
        Ok(())
    }

    fn set_contexts(
        &mut self,
        data: &[u8],
        exports: &dyn Exports,
        number: u32,
        out: &mut BytesMut,
    ) -> Result<(), Refusal> {
        // A failed request, too, replaces what was selected before.
        self.allocation_for = None;
        let query = ContextQuery::parse(data, self.style)?;
        resolve(query.export, exports).ok_or(OptionReply::Unknown)?;
        if query.names_allocation {
            self.allocation_for = Some(query.export.to_owned());
            put_context(out, number, ALLOCATION_ID);
        }
        Ok(())
    }
}

/// Data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
struct ContextQuery<'a> {
    export: &'a str,
    is_empty: bool,
    names_allocation: bool,
    names_base: bool,
}

impl<'a> ContextQuery<'a> {
    fn parse(mut data: &'a [u8], style: Style) -> Result<Self, Refusal> {
        if style == Style::Simple {
            return Err(OptionReply::Invalid);
        }
        let export = take_string(&mut data)?;
        let count = data.try_get_u32().map_err(|_| OptionReply::Invalid)?;
        let mut query =
            Self { export, is_empty: count == 0, names_allocation: false, names_base: false };
        // Each turn takes four bytes or fails, so that a lying count ends with the data.
        for _ in 0..count {
            match take_string(&mut data)? {
                ALLOCATION => query.names_allocation = true,
                BASE_WILDCARD => query.names_base = true,
                // "the server MUST ignore query strings belonging to an unknown namespace"
                _ => {}
            }
        }
        if data.is_empty() { Ok(query) } else { Err(OptionReply::Invalid) }
    }
}

fn put_context(out: &mut BytesMut, number: u32, id: u32) {
    let parts = [&id.to_be_bytes()[..], ALLOCATION.as_bytes()];
    put_option_reply(out, number, OptionReply::MetaContext, &parts);
}

fn list(
    data: &[u8],
    exports: &dyn Exports,
    number: u32,
    out: &mut BytesMut,
) -> Result<(), Refusal> {
    if !data.is_empty() {
        return Err(OptionReply::Invalid);
    }
    for name in exports.list() {
        let len = u32::try_from(name.len()).expect("names are at most 4096 bytes");
        let parts = [&len.to_be_bytes()[..], name.as_bytes()];
        put_option_reply(out, number, OptionReply::Server, &parts);
    }
    Ok(())
}

/// The export called `name`; the empty name stands for the only one.
fn resolve(name: &str, exports: &dyn Exports) -> Option<Arc<dyn Export>> {
    if !name.is_empty() {
        return exports.open(name);
    }
    let names = exports.list();
    match &names[..] {
        [only] => exports.open(only),
        _ if names.iter().any(String::is_empty) => exports.open(""),
        _ => None,
    }
}

/// A string behind its 32-bit length.
fn take_string<'a>(data: &mut &'a [u8]) -> Result<&'a str, Refusal> {
    let len = data.try_get_u32().map_err(|_| OptionReply::Invalid)? as usize;
    let string = data.split_off(..len).ok_or(OptionReply::Invalid)?;
    if len > NAME_BYTES_MAX {
        return Err(OptionReply::TooBig);
    }
    str::from_utf8(string).map_err(|_| OptionReply::Invalid)
}

fn transmission_flags(info: &ExportInfo, style: Style) -> u16 {
    use transmission_flag as flag;
    let optional = [
        (info.read_only, flag::READ_ONLY),
        (info.rotational, flag::ROTATIONAL),
        (info.multi_conn, flag::CAN_MULTI_CONN),
        (info.fast_zero, flag::SEND_FAST_ZERO),
        // "MUST leave this flag clear if structured replies have not been negotiated"
        (style == Style::Structured, flag::SEND_DF),
    ];
    let always = flag::HAS_FLAGS
        | flag::SEND_FLUSH
        | flag::SEND_FUA
        | flag::SEND_TRIM
        | flag::SEND_WRITE_ZEROES
        | flag::SEND_CACHE;
    optional.iter().filter(|(is_set, _)| *is_set).fold(always, |flags, (_, flag)| flags | flag)
}

#[cfg(test)]
mod test;
