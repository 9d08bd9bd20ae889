// Drives the unmodified JavaScript SDK for a test: one JSON command per line in, one JSON answer per line out, as
// client.py does. The SDK has no timeout of its own, so this program gives up on a call as an application must.
'use strict';

const readline = require('readline');
const sm = require('aws-greengrass-core-sdk/stream-manager');

let client = null;
let timeout = 20_000;

// The SDK's logger writes to standard output unless told otherwise.
const log = (...args) => console.error(...args);
const logger = { error: log, warn: log, info: log, debug: () => {} };

// A refused connection also surfaces as a rejection that nobody can catch; onErrorCb has reported it by then.
process.on('unhandledRejection', (e) => log('unhandled rejection:', e));

const read = async (name, options) => {
    const messages = await client.readMessages(name, options ? sm.ReadMessagesOptions.fromMap(options) : null);
    return {
        messages: messages.map((m) => ({
            streamName: m.streamName,
            sequenceNumber: m.sequenceNumber,
            ingestTime: m.ingestTime,
            payload: m.payload.toString('base64'),
        })),
    };
};
let reading = null; // begun and not finished

const commands = {
    connect({ requestTimeout = 20 }) {
        timeout = requestTimeout * 1000;
        if (client) client.close();
        return new Promise((resolve, reject) => {
            client = new sm.StreamManagerClient({ logger, onConnectCb: resolve, onErrorCb: reject });
        });
    },
    async close() { client.close(); },
    create({ definition }) { return client.createMessageStream(sm.MessageStreamDefinition.fromMap(definition)); },
    update({ definition }) { return client.updateMessageStream(sm.MessageStreamDefinition.fromMap(definition)); },
    delete({ name }) { return client.deleteMessageStream(name); },
    async list() { return { streams: await client.listStreams() }; },
    async describe({ name }) { return { info: (await client.describeMessageStream(name)).asMap() }; },
    async append({ name, payload }) {
        return { sequenceNumber: await client.appendMessage(name, Buffer.from(payload, 'base64')) };
    },
    read({ name, options }) { return read(name, options); },
    async begin({ name, options }) {
        reading = read(name, options);
        reading.catch(() => {}); // finish reports it
    },
    finish() { return reading; },
    async parallel({ name, workers, each }) {
        const work = async (worker) => {
            const sequence = [];
            for (let i = 0; i < each; i += 1) {
                // eslint-disable-next-line no-await-in-loop
                sequence.push(await client.appendMessage(name, Buffer.from(`${worker} ${i}`)));
            }
            return sequence;
        };
        return { sequenceNumbers: await Promise.all([...Array(workers).keys()].map(work)) };
    },
    async unknown() {
        const internal = require('aws-greengrass-core-sdk/stream-manager/utilInternal');
        internal.throwOnErrorResponse(await client._sendAndReceive(sm.Operation.ListStreamsResponse, new sm.ListStreamsRequest()));
    },
};

const giveUp = (ms) => {
    let timer;
    const promise = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new TimeoutError(`no answer within ${ms} ms`)), ms);
    });
    return { promise, cancel: () => clearTimeout(timer) };
};

class TimeoutError extends Error {}

(async () => {
    for await (const line of readline.createInterface({ input: process.stdin, crlfDelay: Infinity })) {
        const { do: name, ...args } = JSON.parse(line);
        let answer;
        const limit = giveUp(args.requestTimeout ? args.requestTimeout * 1000 : timeout);
        try {
            answer = { ok: await Promise.race([commands[name](args), limit.promise]) || {} };
        } catch (e) {
            answer = { error: e?.constructor?.name || 'Error', message: e?.message || String(e) };
            if (e?.code) answer.error = e.code;
        }
        limit.cancel();
        process.stdout.write(`${JSON.stringify(answer)}\n`);
    }
    process.exit(0);
})();
