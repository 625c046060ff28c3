//! Long lists in messages of moderate size.

use prost::Message;

/// Encoded bytes at which a message is full; clients take up to 16 MiB.
const FULL: usize = 1 << 20;

/// Every item once, in order, no message empty. Items are made as messages are asked
/// for: who stops asking stops the work.
pub(super) fn chunks<T: Message>(
    items: impl IntoIterator<Item = T>,
) -> impl Iterator<Item = Vec<T>> {
    chunks_of(FULL, items)
}

fn chunks_of<T: Message>(
    full: usize,
    items: impl IntoIterator<Item = T>,
) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter();
    let mut next = items.next();
    std::iter::from_fn(move || {
        let first = next.take()?;
        let mut size = first.encoded_len();
        let mut chunk = vec![first];
        for item in items.by_ref() {
            size += item.encoded_len();
            if size > full {
                next = Some(item);
                break;
            }
            chunk.push(item);
        }
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use carpel_proto::cri::PodIp;

    use super::chunks_of;

    fn sizes(full: usize, lengths: &[usize]) -> Vec<usize> {
        let items = lengths.iter().map(|length| PodIp {
            ip: "x".repeat(*length),
        });
        chunks_of(full, items).map(|chunk| chunk.len()).collect()
    }

    #[test]
    fn a_message_is_as_full_as_it_may_be() {
        // Each item is two bytes longer than its text.
        assert_eq!(sizes(24, &[10, 10, 10, 10, 10]), [2, 2, 1]);
        assert_eq!(sizes(24, &[10]), [1]);
        assert!(sizes(24, &[]).is_empty());
    }

    #[test]
    fn what_is_larger_than_a_message_goes_alone() {
        assert_eq!(sizes(24, &[1, 100, 1, 1]), [1, 1, 2]);
    }

    #[test]
    fn items_are_made_when_they_are_asked_for() {
        let mut made = 0;
        let items = (0..1000).map(|_| {
            made += 1;
            PodIp { ip: "x".repeat(8) }
        });
        assert_eq!(chunks_of(20, items).take(2).count(), 2);
        assert!(made <= 6, "{made}");
    }
}
