// The consumer of the old system at work, until SIGTERM: KafkaJS, eachBatch, group
// nexus-consumer-group. Writes the key of each message that it has processed to FILE,
// one a line; the offsets are committed after each batch.
// usage: node group.js BROKER TOPIC FILE
'use strict'

const fs = require('fs')
const { Kafka, logLevel } = require('kafkajs')
const onCrash = require('./crash')

const [broker, topic, file] = process.argv.slice(2)

async function main () {
  const kafka = new Kafka({ clientId: 'nexus-consumer', brokers: [broker], logLevel: logLevel.ERROR })
  const consumer = kafka.consumer({ groupId: 'nexus-consumer-group' })

  process.once('SIGTERM', () => consumer.disconnect().catch(fail))
  onCrash(consumer, fail)
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    eachBatch: async ({ batch }) => {
      fs.appendFileSync(file, batch.messages.map(({ key }) => `${key}\n`).join(''))
    }
  })
}

function fail (error) {
  console.error(error)
  process.exit(1)
}

main().catch(fail)
