//! What a browser may do with the page: run the one script and use the one style that are in it, and send requests to
//! this maitred. Both are named by the digest of their text.

use std::sync::LazyLock;

use axum::http::HeaderValue;
use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};

use super::{SCRIPT, STYLE};

/// The `Content-Security-Policy` of every answer.
pub fn header() -> HeaderValue {
    static HEADER: LazyLock<HeaderValue> = LazyLock::new(|| {
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            BASE64_STANDARD.encode(Sha256::digest(STYLE)),
            BASE64_STANDARD.encode(Sha256::digest(SCRIPT)),
        );
        HeaderValue::from_str(&policy).expect("base64 and the words above are visible ASCII")
    });
    HEADER.clone()
}
