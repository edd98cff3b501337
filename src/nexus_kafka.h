/*
 * nexus_kafka.h
 *		The settings, known everywhere.
 */
#ifndef NEXUS_KAFKA_H
#define NEXUS_KAFKA_H

#include "postgres.h"

#define NEXUS_EXTENSION		"nexus_kafka"
#define NEXUS_VERSION		"1.0"

extern char *nexus_bootstrap_servers;
extern char *nexus_config_file;
extern bool nexus_embedded_broker;
extern char *nexus_topic;
extern int	nexus_max_message_bytes;
extern int	nexus_max_jobs;

#endif							/* NEXUS_KAFKA_H */
