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
