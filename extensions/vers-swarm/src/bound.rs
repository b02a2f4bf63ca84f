//! Ends of texts, and how several texts share the room that there is.

pub use pi_vers_sdk::text::{end, first};

/// The last `count` characters of a text.
#[must_use]
pub fn last(text: &str, count: usize) -> &str {
    match count.checked_sub(1) {
        None => "",
        Some(back) => match text.char_indices().rev().nth(back) {
            Some((from, _)) => text.get(from..).unwrap_or_default(),
            None => text,
        },
    }
}

/// A text as part of a line: its first `count` characters, without line ends.
#[must_use]
pub fn one_line(text: &str, count: usize) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    first(&words, count, "…")
}

/// How much room each text gets: what it needs if that is little, else an equal share of what the others leave.
/// None gets more than `each`, all together not more than `all`.
#[must_use]
pub fn shares(sizes: &[usize], each: usize, all: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    let size = |at: &usize| sizes.get(*at).copied().unwrap_or(0).min(each);
    order.sort_by_key(size);
    let mut shares = vec![0; sizes.len()];
    let mut left = all;
    for (done, at) in order.iter().enumerate() {
        let share = size(at).min(left / (order.len() - done));
        left -= share;
        if let Some(place) = shares.get_mut(*at) {
            *place = share;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ends_begin_with_a_whole_character() {
        assert_eq!(end("grüß", 3), "ß");
        assert_eq!(end("grüß", 2), "ß");
        assert_eq!(end("grüß", 1), "");
        assert_eq!(end("abc", 9), "abc");
        assert_eq!(
            (last("grüß", 2), last("ab", 5), last("ab", 0)),
            ("üß", "ab", "")
        );
        assert_eq!(first("grüß", 3, "[...]"), "grü[...]");
        assert_eq!(first("grüß", 4, "[...]"), "grüß");
        assert_eq!(one_line(" a\n\tb  c ", 3), "a b…");
    }

    #[test]
    fn little_is_shown_whole_and_much_shares_what_is_left() {
        assert_eq!(shares(&[10, 1_000, 1_000], 400, 500), [10, 245, 245]);
        assert_eq!(shares(&[10, 1_000], 400, 5_000), [10, 400]);
        assert_eq!(shares(&[], 400, 500), Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn shares_never_exceed_the_room(sizes in proptest::collection::vec(0_usize..5_000, 0..20), each in 0_usize..2_000, all in 0_usize..9_000) {
            let shares = shares(&sizes, each, all);
            prop_assert!(shares.iter().sum::<usize>() <= all);
            prop_assert!(shares.iter().zip(&sizes).all(|(share, size)| share <= size && *share <= each));
            // Nobody is left with less than an equal share while another has more than one.
            if let Some(most) = shares.iter().max() {
                for (share, size) in shares.iter().zip(&sizes) {
                    prop_assert!(*share == (*size).min(each) || share + 1 >= *most);
                }
            }
        }

        #[test]
        fn an_end_is_an_end(text in "\\PC{0,30}", most in 0_usize..40) {
            prop_assert!(text.ends_with(end(&text, most)) && end(&text, most).len() <= most);
            prop_assert!(text.ends_with(last(&text, most)));
            prop_assert_eq!(last(&text, most).chars().count(), text.chars().count().min(most));
        }
    }
}
