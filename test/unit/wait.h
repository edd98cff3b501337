/*
 * wait.h
 *		Waiting for a client as a worker does: for its fd, and serving it then.
 */
#ifndef NEXUS_WAIT_H
#define NEXUS_WAIT_H

#include <poll.h>

#include "kafka/kafka.h"

static inline void
wait_for(KafkaClient *client)
{
	struct pollfd fd = {kafka_client_fd(client), POLLIN, 0};

	poll(&fd, 1, 1000);
	kafka_client_serve(client);
}

#endif							/* NEXUS_WAIT_H */
