//! "Did you mean …?"

/// The candidate nearest to `word`, when it is near enough to be meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits from one word to the other; a change of case costs nothing, a swap of neighbours one.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().chars().take(64).collect();
    let right: Vec<char> = right.to_lowercase().chars().take(64).collect();
    let width = right.len() + 1;
    let mut table = vec![0; (left.len() + 1) * width];
    for (i, cell) in table.iter_mut().take(width).enumerate() {
        *cell = i;
    }
    for i in 1..=left.len() {
        table[i * width] = i;
        for j in 1..=right.len() {
            let change = usize::from(left[i - 1] != right[j - 1]);
            let mut best = (table[(i - 1) * width + j] + 1)
                .min(table[i * width + j - 1] + 1)
                .min(table[(i - 1) * width + j - 1] + change);
            let swapped =
                i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
            if swapped {
                best = best.min(table[(i - 2) * width + j - 2] + 1);
            }
            table[i * width + j] = best;
        }
    }
    table[left.len() * width + right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 4] = ["containerPort", "hostPort", "name", "image"];

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        assert_eq!(nearest("contanerPort", FIELDS), Some("containerPort"));
        assert_eq!(nearest("hostport", FIELDS), Some("hostPort"));
        assert_eq!(nearest("imgae", FIELDS), Some("image"));
        assert_eq!(nearest("livenessProbe", FIELDS), None);
        assert_eq!(nearest("x", FIELDS), None);
    }
}
