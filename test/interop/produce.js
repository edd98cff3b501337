// The producer route of the old system: enriches each body as the route did and
// sends it with KafkaJS, with a nanoid as key and no id in the value.
// usage: node produce.js BROKER TOPIC < bodies (one JSON object a line) > keys
'use strict'

const crypto = require('crypto')
const fs = require('fs')
const { Kafka, logLevel } = require('kafkajs')

const [broker, topic] = process.argv.slice(2)

// nanoid's form (21 characters of 64), without the dependency.
const nanoid = () => crypto.randomBytes(16).toString('base64url').slice(0, 21)

function enrich (body) {
  return {
    ...body,
    metadata: {
      ...body.metadata,
      enqueuedAt: new Date().toISOString(),
      producerVersion: '2.0.0',
      url: body.metadata?.url || 'unknown',
      userAgent: body.metadata?.userAgent || 'unknown'
    }
  }
}

async function main () {
  const bodies = fs.readFileSync(0, 'utf8').split('\n').filter(Boolean).map(line => JSON.parse(line))
  const messages = bodies.map(body => ({ key: nanoid(), value: JSON.stringify(enrich(body)) }))
  const kafka = new Kafka({ clientId: 'nexus-producer', brokers: [broker], logLevel: logLevel.ERROR })
  const producer = kafka.producer()

  await producer.connect()
  await producer.send({ topic, messages })
  await producer.disconnect()
  for (const { key, value } of messages) console.log(JSON.stringify({ key, value }))
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
