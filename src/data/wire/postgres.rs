//! How a PostgreSQL client asks for encryption before it sends anything else. Source: PostgreSQL documentation,
//! "Message Formats": SSLRequest and GSSENCRequest, eight bytes each; the answer is a single byte.

use super::Progress;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    GssEncryption,
    Tls,
}

pub const LENGTH: usize = 8;
pub const TLS_REQUEST: [u8; LENGTH] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: [u8; LENGTH] = [0, 0, 0, 8, 4, 210, 22, 48];

/// "Continue in TLS", and "continue without".
pub const YES: u8 = b'S';
pub const NO: u8 = b'N';

/// The request with which `bytes` begin, if it is one; decided at the first byte that differs.
pub fn read(bytes: &[u8]) -> Progress<Option<Request>> {
    let begun = &bytes[..bytes.len().min(LENGTH)];
    match [(TLS_REQUEST, Request::Tls), (GSS_REQUEST, Request::GssEncryption)]
        .into_iter()
        .find(|(request, _)| request.starts_with(begun))
    {
        None => Progress::Whole(None),
        Some(_) if begun.len() < LENGTH => Progress::Partial,
        Some((_, request)) => Progress::Whole(Some(request)),
    }
}

/// The shortest CancelRequest, and the longest since version 3.2 of the protocol: its key has 4 to 256 bytes. Source:
/// "Message Formats", CancelRequest.
const CANCEL: std::ops::RangeInclusive<usize> = 16..=12 + 256;
const CANCEL_CODE: [u8; 4] = [4, 210, 22, 46];

/// The most bytes that `cancel` looks at.
pub const CANCEL_MOST: usize = *CANCEL.end();

/// The length of the CancelRequest with which `bytes` begin, if it is one; decided at the first byte that differs.
pub fn cancel(bytes: &[u8]) -> Progress<Option<usize>> {
    let (length, rest) = bytes.split_at(bytes.len().min(4));
    let may_be = match *length {
        [] => true,
        [high, ref low @ ..] if low.len() < 3 => {
            high == 0 && low.iter().zip([0, 1]).all(|(byte, most)| *byte <= most)
        }
        [0, 0, high, low] => CANCEL.contains(&usize::from(u16::from_be_bytes([high, low]))),
        _ => false,
    };
    if !may_be || !CANCEL_CODE.iter().zip(rest).all(|(code, byte)| code == byte) {
        return Progress::Whole(None);
    }
    match *length {
        [_, _, high, low] if bytes.len() >= usize::from(u16::from_be_bytes([high, low])) => {
            Progress::Whole(Some(usize::from(u16::from_be_bytes([high, low]))))
        }
        _ => Progress::Partial,
    }
}

/// A startup message of version 3, with which a client without TLS begins. Recognised by its first eight bytes.
pub fn is_startup(bytes: &[u8]) -> bool {
    matches!(bytes, [0, 0, _, _, 0, 3, 0, _, ..])
}

/// What a client shows to its user, in place of "server closed the connection unexpectedly". `code` is an SQLSTATE.
/// Source: "Message Formats", ErrorResponse; "Error and Notice Message Fields".
pub fn error(code: &str, message: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    for (kind, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', message)] {
        fields.push(kind);
        fields.extend(value.bytes().filter(|byte| *byte != 0));
        fields.push(0);
    }
    fields.push(0);
    // Far below 2^32: two short texts.
    let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX);
    [&b"E"[..], &length.to_be_bytes(), &fields].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_byte_by_byte() {
        let expected = b"E\0\0\0\x22SFATAL\0VFATAL\0C57P03\0Mno one\0\0";
        assert_eq!(error("57P03", "no one"), expected);
        assert!(is_startup(b"\0\0\0\x54\0\x03\0\0user\0") && !is_startup(&TLS_REQUEST));
    }

    #[test]
    fn a_cancel_request_is_one_from_the_first_byte_to_the_last() {
        for key in [4, 32, 256] {
            let length = u8::try_from((12 + key) / 256).unwrap();
            let head = [0, 0, length, u8::try_from((12 + key) % 256).unwrap(), 4, 210, 22, 46];
            let whole = [&head[..], &[7; 4], &vec![9; key]].concat();
            for end in 0..whole.len() {
                assert_eq!(cancel(&whole[..end]), Progress::Partial, "{end} of {}", whole.len());
            }
            assert_eq!(cancel(&whole), Progress::Whole(Some(12 + key)));
            let more = [&whole[..], b"more"].concat();
            assert_eq!(cancel(&more), Progress::Whole(Some(12 + key)), "what follows is not of it");
            for at in [0, 1, 4, 5, 6, 7] {
                let mut other = whole.clone();
                other[at] ^= 0x81;
                for end in at + 1..whole.len() {
                    assert_eq!(cancel(&other[..end]), Progress::Whole(None), "{at}, {end}");
                }
            }
        }
        for other in [
            b"\0\0\0\x0f\x04\xd2\x16\x2e".as_slice(),
            b"\0\0\x01\x0d",
            b"\0\0\x02",
            b"\0\0\0\x10\0\x03\0\0user",
            &TLS_REQUEST,
            &GSS_REQUEST,
            b"\x16\x03\x01",
        ] {
            assert_eq!(cancel(other), Progress::Whole(None), "{other:?}");
        }
    }

    #[test]
    fn requests_and_what_is_none() {
        for end in 0..LENGTH {
            assert_eq!(read(&TLS_REQUEST[..end]), Progress::Partial);
        }
        assert_eq!(read(&TLS_REQUEST), Progress::Whole(Some(Request::Tls)));
        assert_eq!(
            read(b"\0\0\0\x08\x04\xd2\x16\x30more"),
            Progress::Whole(Some(Request::GssEncryption))
        );
        // A startup message, a cancel request, a ClientHello.
        for other in [
            b"\0\0\0\x54".as_slice(),
            b"\0\0\0\x10\x04\xd2\x16\x2e",
            b"\x16",
            b"\0\0\0\x08\x04\xd2\x16\x2e",
        ] {
            assert_eq!(read(other), Progress::Whole(None));
        }
    }
}
