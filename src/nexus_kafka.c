/*
 * nexus_kafka.c
 *		What PostgreSQL calls first: the settings, the launcher, the hooks.
 *
 * Loaded by shared_preload_libraries, all of it. Loaded later, by a call of one
 * of its functions, only the settings: then nexus_produce still writes the
 * outbox, and nothing runs. Likewise in the server that pg_upgrade starts: its tables
 * are about to be replaced, or copied elsewhere, and nothing may be made in it.
 */
#include "nexus_kafka.h"

#include <limits.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/guc.h"

#include "worker/worker.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

char	   *nexus_bootstrap_servers = NULL;
char	   *nexus_config_file = NULL;
bool		nexus_embedded_broker = false;
char	   *nexus_topic = NULL;
int			nexus_max_message_bytes = 1000000;
int			nexus_max_jobs = 64;

static void
define_settings(void)
{
	DefineCustomStringVariable("nexus_kafka.bootstrap_servers",
							   "Kafka brokers to connect to first: host:port, separated by commas.",
							   "Empty: none, nothing is published or consumed.",
							   &nexus_bootstrap_servers, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("nexus_kafka.config_file",
							   "File with the properties of the connection to Kafka, by librdkafka's names, or an application's .env file.",
							   "Lines before the first [name] are the default connection, the others those of that name. Only its owner may read it. A reload reads it again.",
							   &nexus_config_file, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("nexus_kafka.embedded_broker",
							 "Runs a broker inside the server and uses it instead of nexus_kafka.bootstrap_servers.",
							 "For trying out and for tests: it keeps little, and loses it when the server stops.",
							 &nexus_embedded_broker, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("nexus_kafka.topic",
							   "Topic that nexus_produce(jsonb) publishes to.",
							   NULL,
							   &nexus_topic, "nexus-prospect-ingestion", PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("nexus_kafka.max_message_bytes",
							"Largest message that nexus_produce accepts: key, value and headers together.",
							"Keep it below the brokers' message.max.bytes.",
							&nexus_max_message_bytes, 1000000, 1000, 100000000, PGC_SIGHUP, GUC_UNIT_BYTE,
							NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("nexus_kafka.max_jobs",
								"Most jobs in the cluster: for each database with the extension a supervisor, a relay for each connection, and its pipelines.",
								"Sets the size of the shared memory.",
								&nexus_max_jobs, 64, 8, 10000, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("nexus_kafka");
}

static void
register_launcher(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, NEXUS_EXTENSION, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "nexus_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "nexus_kafka launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "nexus_kafka launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

void
_PG_init(void)
{
	define_settings();
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	shmem_install_hooks();
	commands_install_hooks();
	register_launcher();
}
