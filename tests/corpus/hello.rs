//! ClientHellos made to order.

/// A ClientHello of a client that asks for `name` and offers `protocols`, spread over records of `each` bytes and padded
/// as those of post-quantum clients are.
pub fn hello(name: Option<&str>, protocols: &[&str], each: usize) -> Vec<u8> {
    fn vector(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
    }
    let mut extensions = [[0, 51].as_slice(), &vector(&[7; 1300])].concat();
    if let Some(name) = name {
        let entry = [[0].as_slice(), &vector(name.as_bytes())].concat();
        extensions.extend([[0, 0].as_slice(), &vector(&vector(&entry))].concat());
    }
    if !protocols.is_empty() {
        let list = protocols.iter().map(|it| [&[it.len() as u8], it.as_bytes()].concat());
        let list = list.collect::<Vec<_>>().concat();
        extensions.extend([[0, 16].as_slice(), &vector(&vector(&list))].concat());
    }
    let body =
        [[3, 3].as_slice(), &[9; 32], &[0], &vector(&[0x13, 1]), &[1, 0], &vector(&extensions)];
    let body = body.concat();
    let message = [&[1], &(body.len() as u32).to_be_bytes()[1..], body.as_slice()].concat();
    let record = |part: &[u8]| [[22, 3, 1].as_slice(), &vector(part)].concat();
    message.chunks(each).map(record).collect::<Vec<_>>().concat()
}
