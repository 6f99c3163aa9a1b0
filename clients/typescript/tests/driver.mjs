// The driver of the behaviour suite: it does with the client what the suite asks for. See clients/behaviour/README.md.

import { createInterface } from "node:readline";
import { AppServer, BellhopError, connect, Publisher, Queries } from "../dist/index.js";
import { members } from "../dist/json.js";

const nc = await connect();
const queries = new Queries(nc);
let app, publisher;

const application = {
  behaviour: "accept",
  held: [],
  changed: () => {},

  async run(deliveries) {
    for (;;) {
      while (this.behaviour === "stop") await new Promise((resolve) => (this.changed = resolve));
      const { value: delivery, done } = await deliveries.next();
      if (done) return;
      if (this.behaviour === "accept") this.accept(delivery);
      else if (this.behaviour === "later") delivery.later();
      else this.held.push(delivery);
    }
  },

  accept(delivery) {
    if (delivery.accept()) process.stdout.write(`{"accepted":${delivery.json}}\n`);
  },

  behave(behaviour) {
    this.behaviour = behaviour;
    if (behaviour === "accept") this.held.splice(0).forEach((delivery) => this.accept(delivery));
    this.changed();
  },
};

/** Returns the reminders of a command. Their `data` stays as it was written. */
function drafts(line) {
  const reminders = [...members(members(line).get("reminders")).values()];
  return reminders.map((json) => {
    const { data, ...draft } = JSON.parse(json);
    return { ...draft, dataJson: members(json).get("data") };
  });
}

const milliseconds = (seconds) => seconds * 1_000;
const given = (options) => Object.fromEntries(Object.entries(options).filter(([, it]) => it >= 0));

const commands = {
  async app_server({ instance, capacity, answer_within, check_routes_every }) {
    const options = given({
      capacity,
      answerWithin: milliseconds(answer_within),
      checkRoutesEvery: milliseconds(check_routes_every),
    });
    app = await AppServer.start(nc, instance, options);
    app.ended = application.run(app.deliveries);
  },
  connect: ({ users }) => app.connect(users),
  disconnect: ({ users }) => app.disconnect(users),
  behave: ({ as }) => application.behave(as),
  async drain() {
    await app.drain();
    await app.ended;
  },
  publisher({ source, give_up_after, max_reminders }) {
    const options = { giveUpAfter: milliseconds(give_up_after), maxReminders: max_reminders };
    publisher = new Publisher(nc, source, given(options));
  },
  async publish(_, line) {
    const receipts = await Promise.all(drafts(line).map((draft) => publisher.publish(draft)));
    return { ids: receipts.map(({ id }) => id) };
  },
  cancel: ({ ids, user }) => publisher.cancel(ids, user),
  history: (query) => queries.history(query),
  why: ({ source, id, user }) => queries.why(source, id, user),
  mailbox: ({ user, limit }) => queries.mailbox(user, limit),
  erase: ({ user }) => queries.erase(user),
};

async function obey(line) {
  const { n, do: name, ...command } = JSON.parse(line);
  const say = (answer) => process.stdout.write(`${JSON.stringify({ n, ...answer })}\n`);
  try {
    say({ ok: (await commands[name](command, line)) ?? {} });
  } catch (error) {
    if (!(error instanceof BellhopError)) throw error;
    say({ error: error.kind, message: error.message });
  }
}

for await (const line of createInterface({ input: process.stdin })) void obey(line);
process.exit();
