use falcon_protocol::ids::check_topic_name;
use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> Pattern {
    text.parse().expect("a pattern")
}

#[test]
fn wildcards_stand_for_whole_words() {
    for (text, fitting, other) in [
        (
            "orders",
            vec!["orders"],
            vec!["order", "orders.eu", "Orders"],
        ),
        (
            "payments.*",
            vec!["payments.eu"],
            vec!["payments", "payments.eu.v1"],
        ),
        (
            "payments.>",
            vec!["payments.eu", "payments.eu.v1"],
            vec!["payments", "payment.eu"],
        ),
        (
            "*.eu.>",
            vec!["a.eu.b", "a.eu.b.c"],
            vec!["a.eu", "eu.b", "a.us.b"],
        ),
        ("*", vec!["a"], vec!["a.b"]),
        (">", vec!["a", "a.b.c"], vec![]),
    ] {
        let pattern = pattern(text);
        assert!(fitting.iter().all(|topic| pattern.fits(topic)), "{text}");
        assert!(!other.iter().any(|topic| pattern.fits(topic)), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let refused = |text: &str| text.parse::<Pattern>().expect_err("no pattern");
    assert_eq!(refused(""), PatternError::Empty);
    assert_eq!(
        refused(&"a".repeat(201)),
        PatternError::TooLong { bytes: 201 }
    );
    for text in [".a", "a.", "a..b", "."] {
        assert_eq!(refused(text), PatternError::EmptyWord, "{text}");
    }
    for text in ["a.>.b", ">.>", ">.*"] {
        assert_eq!(refused(text), PatternError::RestNotLast, "{text}");
    }
    for word in ["a*", "*a", "**", ">>"] {
        let word = word.to_owned();
        assert_eq!(refused(&word), PatternError::PartOfWord { word });
    }
    assert_eq!(refused("a.b c"), PatternError::Character { character: ' ' });
}

/// What a pattern means, word by word, written differently.
fn fits_by_definition(pattern: &[&str], topic: &[&str]) -> bool {
    match (pattern, topic) {
        ([">"], [_, ..]) | ([], []) => true,
        ([wanted, rest @ ..], [word, words @ ..]) => {
            (*wanted == "*" || wanted == word) && fits_by_definition(rest, words)
        }
        ([], _) | (_, []) => false,
    }
}

proptest! {
    #[test]
    fn every_topic_name_is_a_pattern_that_fits_itself(name in "[a-c_-]{1,3}(\\.[a-c]{1,2}){0,3}") {
        prop_assert!(check_topic_name(&name).is_ok());
        prop_assert!(pattern(&name).fits(&name));
    }

    #[test]
    fn fitting_equals_the_definition(
        text in "([ab]|\\*)(\\.([ab]|\\*)){0,3}(\\.>)?",
        topic in "[ab](\\.[ab]){0,4}",
    ) {
        let words = |text: &'_ str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let (wanted, found) = (words(&text), words(&topic));
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        prop_assert_eq!(pattern(&text).fits(&topic), fits_by_definition(&wanted, &found));
    }

    #[test]
    fn any_text_is_accepted_or_refused(text in "\\PC{0,30}") {
        if let Ok(pattern) = text.parse::<Pattern>() {
            prop_assert_eq!(pattern.as_str(), text);
        }
    }
}
