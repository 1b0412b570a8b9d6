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

/// "Go on in TLS", and "go on without".
pub const YES: u8 = b'S';
pub const NO: u8 = b'N';

/// What `bytes` begin with, if it is such a request; told apart at the first byte that differs.
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

#[cfg(test)]
mod tests {
    use super::*;

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
