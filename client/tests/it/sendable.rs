//! Every public future can be awaited inside a spawned task. Compiling is the test.

use std::time::Duration;

use falcon_client::{
    Client, Offset, Offsets, Partition, Publisher, Record, Start, Subscription, SubscriptionEvents,
    Ticket, Topic, TopicChange, TopicOptions, TypedPublisher, TypedSubscription,
};

fn is_send<F: Future + Send>(future: F) {
    drop(future);
}

fn futures_of_the_client(client: &Client) {
    is_send(Client::connect("falcon://127.0.0.1"));
    is_send(Client::builder("falcon://127.0.0.1").connect());
    is_send(client.create_topic("orders", TopicOptions::new(1)));
    is_send(client.ensure_topic("orders", TopicOptions::new(1)));
    is_send(client.describe_topic("orders"));
    is_send(client.list_topics());
    is_send(client.alter_topic("orders", TopicChange::new()));
    is_send(client.delete_topic("orders"));
    is_send(client.list_offsets("orders", Start::Earliest));
    is_send(client.earliest_offsets("orders"));
    is_send(client.latest_offsets("orders"));
    is_send(client.list_groups());
    is_send(client.publisher("orders").build());
    is_send(client.subscribe("orders").open());
    is_send(client.shutdown());
    is_send(client.shutdown_within(Duration::ZERO));
}

fn futures_of_publishers(publisher: &Publisher, typed: &TypedPublisher<u64>, ticket: Ticket) {
    is_send(publisher.publish(Record::new("")));
    is_send(publisher.send(Record::new("")));
    is_send(publisher.send_to(0, Record::new("")));
    is_send(publisher.send_timeout(Record::new(""), Duration::ZERO));
    is_send(publisher.flush());
    is_send(publisher.close());
    is_send(ticket);
    is_send(typed.publish(&1));
    is_send(typed.send(&1));
    is_send(typed.flush());
    is_send(typed.close());
}

fn futures_of_subscriptions(
    records: &mut Subscription,
    typed: &mut TypedSubscription<u64>,
    events: &mut SubscriptionEvents,
    topic: &Topic<u64>,
) {
    is_send(records.next());
    is_send(records.close());
    is_send(typed.next());
    is_send(typed.close());
    is_send(events.next());
    is_send(topic.publisher());
    is_send(topic.publisher_with(|options| options));
    is_send(topic.subscribe().open());
}

fn futures_of_offsets(offsets: &Offsets) {
    is_send(offsets.commit("orders", 0, Offset::ZERO));
    is_send(offsets.commit_all(&[("orders", Partition(0), Offset::ZERO)]));
    is_send(offsets.fetch("orders"));
    is_send(offsets.fetch_all());
    is_send(offsets.delete(None));
}

/// What the compiler accepts for references it has to accept for what a task owns, too.
fn owned_by_a_task(client: Client) {
    is_send(async move {
        let latest = client.latest_offsets("orders").await;
        drop(client);
        latest
    });
}

const _: fn(&Client) = futures_of_the_client;
const _: fn(&Publisher, &TypedPublisher<u64>, Ticket) = futures_of_publishers;
const _: FuturesOfSubscriptions = futures_of_subscriptions;
const _: fn(&Offsets) = futures_of_offsets;
const _: fn(Client) = owned_by_a_task;

type FuturesOfSubscriptions =
    fn(&mut Subscription, &mut TypedSubscription<u64>, &mut SubscriptionEvents, &Topic<u64>);
