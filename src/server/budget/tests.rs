use futures_util::FutureExt;

use super::*;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn what_is_read_ahead_beyond_the_budgets_is_bounded_for_all_together() {
    let spare = Spare::default();
    let budgets = [(); 3].map(|()| Budget::new(1 << 20, spare.clone()));
    let mut paid: Vec<_> = budgets
        .iter()
        .map(|of| of.pay(MIB).now_or_never())
        .collect();
    assert!(
        paid.iter()
            .flatten()
            .flatten()
            .all(|paid| paid.num_permits() == MIB)
    );
    assert_eq!(paid.iter().flatten().flatten().count(), 3);
    let ahead = [0, 1].map(|of| budgets[of].pay_ahead(MIB).now_or_never().flatten());
    assert!(ahead.iter().all(Option::is_some), "there are spare bytes");
    let waiting = budgets[2].pay_ahead(MIB);
    tokio::pin!(waiting);
    assert!(
        waiting.as_mut().now_or_never().is_none(),
        "there are none left"
    );
    paid.pop();
    assert!(waiting.now_or_never().flatten().is_some());
    drop(ahead);
    let alone = budgets[0].pay(MIB).now_or_never();
    assert!(
        alone.is_none(),
        "who reads nothing else waits for its own budget"
    );
}
