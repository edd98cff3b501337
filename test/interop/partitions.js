// The partition that KafkaJS's default partitioner chooses for each key.
// usage: node partitions.js PARTITIONS < keys (one a line, in hex) > partitions
'use strict'

const fs = require('fs')
const { Partitioners } = require('kafkajs')

const partitionMetadata = Array.from({ length: Number(process.argv[2]) },
  (_, partitionId) => ({ partitionId, leader: 0 }))
const partitioner = Partitioners.DefaultPartitioner()

for (const hex of fs.readFileSync(0, 'utf8').split('\n').slice(0, -1)) {
  const message = { key: Buffer.from(hex, 'hex') }
  console.log(partitioner({ topic: 'any', partitionMetadata, message }))
}
