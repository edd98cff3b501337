// A consumer's crash is the script's, but while the broker's coordinator loads its groups,
// which a new broker may do still: then KafkaJS starts the consumer again by itself.
'use strict'

module.exports = (consumer, fail) => {
  consumer.on(consumer.events.CRASH, ({ payload: { error, restart } }) => {
    if (!restart || error.type !== 'GROUP_LOAD_IN_PROGRESS') fail(error)
  })
}
