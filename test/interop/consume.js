// The consumer of the old system: KafkaJS, eachBatch, group nexus-consumer-group, from
// the topic's beginning. Prints COUNT messages and leaves.
// usage: node consume.js BROKER TOPIC COUNT > messages (one JSON object a line; key,
//        value and headers in hex, null for null, repeated headers as an array)
'use strict'

const { Kafka, logLevel } = require('kafkajs')
const onCrash = require('./crash')

const [broker, topic, count] = process.argv.slice(2)

const hex = bytes => Array.isArray(bytes) ? bytes.map(hex) : bytes && Buffer.from(bytes).toString('hex')

function print (partition, { offset, key, value, headers }) {
  const hexHeaders = Object.fromEntries(Object.entries(headers).map(([name, bytes]) => [name, hex(bytes)]))
  console.log(JSON.stringify({ partition, offset: Number(offset), key: hex(key), value: hex(value), headers: hexHeaders }))
}

async function main () {
  const kafka = new Kafka({ clientId: 'nexus-consumer', brokers: [broker], logLevel: logLevel.ERROR })
  const consumer = kafka.consumer({ groupId: 'nexus-consumer-group' })
  let left = Number(count)

  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await new Promise((resolve, reject) => {
    onCrash(consumer, reject)
    consumer.run({
      eachBatch: async ({ batch }) => {
        for (const message of batch.messages.slice(0, left)) {
          print(batch.partition, message)
          if (--left === 0) resolve()
        }
      }
    })
  })
  await consumer.disconnect()
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
