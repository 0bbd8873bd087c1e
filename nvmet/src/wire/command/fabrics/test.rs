use proptest::prelude::*;
use zerocopy::FromBytes;

use super::*;

const INVALID: Status = Status::INVALID_FIELD.dnr();

fn sqe(fctype: u8, tail: [u8; 24]) -> Sqe {
    let mut bytes = [0; 64];
    bytes[..5].copy_from_slice(&[0x7f, 0x40, 0, 0, fctype]);
    bytes[40..].copy_from_slice(&tail);
    Sqe::read_from_bytes(&bytes).expect("64 bytes")
}

fn tail(bytes: &[u8]) -> [u8; 24] {
    let mut tail = [0; 24];
    tail[..bytes.len()].copy_from_slice(bytes);
    tail
}

#[test]
fn captured_connects_are_understood() {
    // Connect qid=2 sqsize=127 cattr=0x4 kato=0, then the admin queue with kato=5000.
    let io = sqe(1, tail(&[0, 0, 2, 0, 127, 0, 4, 0, 0, 0, 0, 0]));
    let expected = Connect { qid: 2, sqsize: 127, without_flow_control: true, kato_ms: 0 };
    assert_eq!(FabricsCommand::parse(&io), Ok(FabricsCommand::Connect(expected)));
    let admin = sqe(1, tail(&[0, 0, 0, 0, 31, 0, 0, 0, 0x88, 0x13, 0, 0]));
    let expected = Connect { qid: 0, sqsize: 31, without_flow_control: false, kato_ms: 5000 };
    let command = FabricsCommand::parse(&admin).expect("captured");
    assert_eq!(command, FabricsCommand::Connect(expected));
    assert_eq!(command.data_rule(), DataRule::Exact(Direction::HostToController, 1024));
    let other_format = sqe(1, tail(&[1, 0]));
    let refused = Err(Status::CONNECT_INCOMPATIBLE_FORMAT.dnr());
    assert_eq!(FabricsCommand::parse(&other_format), refused);
}

#[test]
fn captured_properties_are_understood() {
    let get = sqe(4, tail(&[1, 0, 0, 0, 0, 0, 0, 0]));
    let expected = FabricsCommand::PropertyGet(Property::Capabilities);
    assert_eq!(FabricsCommand::parse(&get), Ok(expected));
    // PropertySet CC(0x14) size=4 value=0x460061; the upper half of the value is not the host's.
    let set = sqe(0, tail(&[0, 0, 0, 0, 0x14, 0, 0, 0, 0x61, 0, 0x46, 0, 0xff, 0, 0, 0]));
    let expected =
        FabricsCommand::PropertySet { property: Property::Configuration, value: 0x46_0061 };
    assert_eq!(FabricsCommand::parse(&set), Ok(expected));
    assert_eq!(expected.data_rule(), DataRule::None);
    let cases = [
        (tail(&[0, 0, 0, 0, 0x00]), "4 bytes of an 8-byte property"),
        (tail(&[1, 0, 0, 0, 0x14]), "8 bytes of a 4-byte property"),
        (tail(&[2, 0, 0, 0, 0x14]), "reserved size"),
        (tail(&[0, 0, 0, 0, 0x0c]), "no such property"),
    ];
    for (tail, what) in cases {
        assert_eq!(FabricsCommand::parse(&sqe(4, tail)), Err(INVALID), "{what}");
    }
}

#[test]
fn disconnect_is_understood_and_authentication_is_not_there() {
    let parse = |fctype, first| FabricsCommand::parse(&sqe(fctype, tail(&[first])));
    assert_eq!(parse(8, 0), Ok(FabricsCommand::Disconnect));
    assert_eq!(parse(8, 1), Err(Status::CONNECT_INCOMPATIBLE_FORMAT.dnr()));
    for fctype in [5, 6, 2, 0xff] {
        assert_eq!(parse(fctype, 0), Err(INVALID), "the opcode is right, its type is a field");
    }
}

#[test]
fn connect_data_has_its_fields_in_place() {
    let mut data = [0; 1024];
    data[..16].copy_from_slice(&[0x5a; 16]);
    data[16..18].copy_from_slice(&[0xff, 0xff]);
    data[256..263].copy_from_slice(b"nqn.sub");
    data[512..520].copy_from_slice(b"nqn.host");
    let parsed = ConnectData::parse(&data).expect("well formed");
    assert_eq!(parsed.host_id.as_bytes(), &[0x5a; 16]);
    assert_eq!(parsed.cntlid, ConnectData::ANY_CONTROLLER);
    assert_eq!((parsed.subsystem.as_str(), parsed.host.as_str()), ("nqn.sub", "nqn.host"));
    assert_eq!(parsed.to_bytes(), data);
    let mut unterminated = data;
    unterminated[256..512].fill(b'a');
    assert_eq!(ConnectData::parse(&unterminated), Err(ConnectError::SUBNQN));
    data[512] = 0;
    let error = ConnectData::parse(&data).expect_err("no host");
    assert_eq!(error.dw0(), 0x1_0200);
    assert_eq!(error.status(), Status::CONNECT_INVALID_PARAMETERS.dnr());
    assert_eq!(ConnectError::SQSIZE.dw0(), 44);
}

proptest! {
    #[test]
    fn any_command_is_understood_and_written_back_or_refused(
        fctype in prop_oneof![any::<u8>(), 0_u8..9],
        bytes: [u8; 24],
        zeroes in 0_usize..8,
    ) {
        // Formats and property sizes are mostly 0; let some of the commands get past them.
        let mut bytes = bytes;
        bytes[..zeroes].fill(0);
        match FabricsCommand::parse(&sqe(fctype, bytes)) {
            Ok(command) => {
                prop_assert_eq!(FabricsCommand::parse(&command.to_sqe(1)), Ok(command));
            }
            Err(status) => prop_assert!(status.is_dnr() && !status.is_success()),
        }
    }
}
