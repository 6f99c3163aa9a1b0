/**
 * App servers and publishers for Bellhop, a reminder router on NATS.
 *
 * - {@link AppServer} is for programs that hold users' connections (WebSocket, Server-Sent Events): it registers who is
 *   connected, and hands over their reminders.
 * - {@link Publisher} is for business systems: it publishes reminders, and reports when JetStream has stored them.
 * - {@link Queries} asks what became of reminders.
 *
 * @packageDocumentation
 */
export { AppServer, type AppServerOptions } from "./app-server.js";
export { connect } from "./connect.js";
export { Deliveries, Delivery } from "./deliveries.js";
export type { Draft } from "./draft.js";
export { BellhopError, type ErrorKind } from "./errors.js";
export { Publisher, type Publishing, type PublisherOptions, type Receipt } from "./publisher.js";
export { Queries, type QueriesOptions } from "./queries.js";
export type {
  Cancellation,
  DeliveredReminder,
  Duplicate,
  EraseAnswer,
  Erased,
  Field,
  HistoryAnswer,
  HistoryQuery,
  HistoryReminder,
  InstanceName,
  KnownReminder,
  MailboxAnswer,
  Mark,
  MarkAction,
  MergedReminder,
  NamedReminder,
  Outcome,
  OutcomeName,
  Outcomes,
  Priority,
  PublishedReminder,
  Reason,
  RejectCode,
  ReminderSet,
  Repeat,
  Source,
  Step,
  Tag,
  UserId,
  WhyAnswer,
} from "./protocol.js";
