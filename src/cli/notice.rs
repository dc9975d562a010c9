//! What a command says on standard error while it works: one line, or one JSON object.

use std::io::{self, Write};
use std::time::Duration;

use falcon_client::{Client, SubscriptionEvent, SubscriptionEvents};
use serde::Serialize;

/// How often to look whether there is a connection.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Serialize)]
struct JsonNotice<'a> {
    notice: &'a str,
    text: &'a str,
}

/// Says `text` to people, or to programs under the name `notice`.
pub(crate) fn say(is_json: bool, notice: &str, text: &str) {
    let line = if is_json {
        serde_json::to_string(&JsonNotice { notice, text }).unwrap_or_default()
    } else {
        format!("falcon: {text}")
    };
    // There is nobody left to tell when standard error is closed.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Says when the connection is lost and when it is back; never ends.
pub(crate) async fn watch_client(client: &Client, is_json: bool) {
    let mut is_up = true;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if client.is_connected() != is_up {
            is_up = !is_up;
            say_connection(is_json, is_up, "");
        }
    }
}

/// Says when the records stop for want of a connection and when they go on; never ends.
pub(crate) async fn watch_subscription(mut events: SubscriptionEvents, is_json: bool) {
    let mut is_up = true;
    while let Some(event) = events.next().await {
        match event {
            SubscriptionEvent::Disconnected { reason } if is_up => {
                is_up = false;
                say_connection(is_json, is_up, &format!(" ({reason})"));
            }
            SubscriptionEvent::Connected { .. } if !is_up => {
                is_up = true;
                say_connection(is_json, is_up, "");
            }
            SubscriptionEvent::Connected { .. }
            | SubscriptionEvent::Disconnected { .. }
            | SubscriptionEvent::CaughtUp
            | SubscriptionEvent::PartitionsAdded { .. }
            | SubscriptionEvent::PartitionEnded { .. }
            | _ => {}
        }
    }
    std::future::pending::<()>().await;
}

/// Says that the connection is lost, and why if that is known, or that it is back.
pub(crate) fn say_connection(is_json: bool, is_up: bool, reason: &str) {
    if is_up {
        say(is_json, "connected", "the connection is back");
    } else {
        let text = format!("the connection is lost{reason}; trying to reconnect");
        say(is_json, "disconnected", &text);
    }
}
