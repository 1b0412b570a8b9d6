//! Which messages of one flow may leave as one: equal datagrams in a row, of which the last may be shorter. Pure. The
//! kernel splits such a train again (`UDP_SEGMENT`), or passes it whole to a receiver that can take it.

/// Datagrams of one train. Kernels before 6.9 accept no more; newer ones 128.
pub const MOST_CARS: usize = 64;

/// Bytes of one train: the largest payload of UDP over IPv4.
pub const MOST_BYTES: usize = 65_507;

/// One message: its length, and the size of each of its datagrams if the kernel combined it from several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub length: usize,
    pub segment: usize,
}

/// The first messages of a queue that leave together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train {
    pub pieces: usize,
    pub datagrams: usize,
    /// The size of each datagram except the last; `None`: it is one datagram.
    pub segment: Option<u16>,
}

/// Combines as many of `pieces` as may leave together; at least one if there is any.
pub fn couple(pieces: impl IntoIterator<Item = Piece>) -> Train {
    let mut train = Train { pieces: 0, datagrams: 0, segment: None };
    let (mut size, mut bytes) = (0, 0);
    let mut is_closed = false;
    for piece in pieces {
        let cars = cars(piece);
        if train.pieces == 0 {
            size = piece.segment.min(piece.length);
            // An empty datagram has no size at which to split.
            is_closed = size == 0;
        } else {
            // A shorter datagram can only be the last of a train.
            let fits = !is_closed
                && piece.length > 0
                && (piece.segment == size || (cars == 1 && piece.length < size))
                && train.datagrams + cars <= MOST_CARS
                && bytes + piece.length <= MOST_BYTES;
            if !fits {
                break;
            }
        }
        train.pieces += 1;
        train.datagrams += cars;
        bytes += piece.length;
        is_closed = is_closed || !piece.length.is_multiple_of(size);
    }
    if train.datagrams > 1 {
        train.segment = u16::try_from(size).ok();
    }
    train
}

/// How many datagrams a message is.
fn cars(piece: Piece) -> usize {
    piece.length.div_ceil(piece.segment.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(length: usize) -> Piece {
        Piece { length, segment: length }
    }

    fn couple_plain(lengths: &[usize]) -> Train {
        couple(lengths.iter().map(|length| plain(*length)))
    }

    #[test]
    fn equal_neighbours_leave_together_and_a_shorter_one_is_the_last() {
        let train = couple_plain(&[100, 100, 60, 100]);
        assert_eq!(train, Train { pieces: 3, datagrams: 3, segment: Some(100) });
        assert_eq!(couple_plain(&[60, 100]), Train { pieces: 1, datagrams: 1, segment: None });
    }

    #[test]
    fn an_empty_datagram_travels_alone() {
        assert_eq!(couple_plain(&[0, 0]).pieces, 1);
        assert_eq!(couple_plain(&[5, 0]).pieces, 1);
        assert_eq!(couple_plain(&[]), Train { pieces: 0, datagrams: 0, segment: None });
    }

    #[test]
    fn what_came_together_leaves_together() {
        let pieces = [Piece { length: 12_100, segment: 1200 }, plain(1200)];
        assert_eq!(couple(pieces), Train { pieces: 1, datagrams: 11, segment: Some(1200) });
        let pieces = [Piece { length: 12_000, segment: 1200 }, plain(1200), plain(100)];
        assert_eq!(couple(pieces), Train { pieces: 3, datagrams: 12, segment: Some(1200) });
    }

    proptest! {
        /// Split at the segment size, a train gives back exactly the datagrams of which it was made, within the
        /// kernel's limits.
        #[test]
        fn a_train_is_the_datagrams_it_was_made_of(
            messages in proptest::collection::vec(
                (prop_oneof![0..4_usize, 1190..1210_usize, Just(1200)], 1..70_usize, any::<bool>()),
                1..40,
            )
        ) {
            let pieces: Vec<Piece> = messages
                .iter()
                .map(|(segment, count, is_short)| {
                    let length = (segment * count).min(MOST_BYTES);
                    let length = length - usize::from(*is_short && *segment > 1 && *count > 1);
                    Piece { length, segment: *segment }
                })
                .collect();
            let mut rest = &pieces[..];
            while !rest.is_empty() {
                let train = couple(rest.iter().copied());
                prop_assert!(train.pieces > 0);
                let (taken, left) = rest.split_at(train.pieces);
                let bytes: usize = taken.iter().map(|piece| piece.length).sum();
                let cut = |length: usize, segment: usize| -> Vec<usize> {
                    if length == 0 {
                        return vec![0];
                    }
                    let mut sizes = vec![segment; length / segment];
                    sizes.extend((!length.is_multiple_of(segment)).then_some(length % segment));
                    sizes
                };
                let wanted: Vec<usize> =
                    taken.iter().flat_map(|piece| cut(piece.length, piece.segment)).collect();
                let sent = match train.segment {
                    Some(segment) => cut(bytes, usize::from(segment)),
                    None => vec![bytes],
                };
                prop_assert_eq!(&sent, &wanted);
                prop_assert_eq!(train.datagrams, wanted.len());
                prop_assert!(train.pieces == 1 || (bytes <= MOST_BYTES && train.datagrams <= MOST_CARS));
                rest = left;
            }
        }
    }
}
