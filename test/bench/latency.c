/*
 * latency.c
 *	  Time from COMMIT of nexus_produce to the row visible in prospect_tracking.
 *
 * latency CONNINFO COUNT PAUSE_MS
 *	  One connection produces and commits; another then asks for the row, again and
 *	  again, until it is there. The clock runs from the return of COMMIT to the
 *	  return of the first query that saw the row. PAUSE_MS between two, so that each
 *	  meets an idle system. Prints one latency a line, in milliseconds.
 */
#include <err.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP 50
#define GIVE_UP 30.0			/* seconds */

static const char *const payload =
	"{\"messages\": [{\"role\": \"user\", \"content\": \"Hola, \u00bfcu\u00e1nto cuesta una p\u00e1gina web?\"}],"
	" \"fingerprint\": \"latency\", \"sessionId\": \"session-latency\"}";

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static PGconn *
connect_to(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
		errx(1, "%s", PQerrorMessage(conn));
	return conn;
}

/* The result if it is good; the program ends if not. */
static PGresult *
checked(PGconn *conn, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		errx(1, "%s", PQerrorMessage(conn));
	return result;
}

static PGresult *
execute(PGconn *conn, const char *name, const char *parameter)
{
	return checked(conn, PQexecPrepared(conn, name, 1, &parameter, NULL, NULL, 0));
}

static void
produce(PGconn *conn, char *message_id, size_t size)
{
	PGresult   *result;

	PQclear(checked(conn, PQexec(conn, "BEGIN")));
	result = execute(conn, "produce", payload);
	snprintf(message_id, size, "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
	PQclear(checked(conn, PQexec(conn, "COMMIT")));
}

static void
wait_for_row(PGconn *conn, const char *message_id, double start)
{
	int			rows = 0;

	while (rows == 0)
	{
		PGresult   *result = execute(conn, "look", message_id);

		rows = PQntuples(result);
		PQclear(result);
		if (now() - start > GIVE_UP)
			errx(1, "message %s didn't arrive", message_id);
	}
}

int
main(int argc, char **argv)
{
	PGconn	   *producer;
	PGconn	   *reader;

	if (argc != 4)
		errx(1, "usage: latency CONNINFO COUNT PAUSE_MS");
	producer = connect_to(argv[1]);
	reader = connect_to(argv[1]);
	PQclear(checked(producer, PQprepare(producer, "produce",
										"SELECT nexus_produce($1::jsonb) ->> 'messageId'", 1, NULL)));
	PQclear(checked(reader, PQprepare(reader, "look",
									  "SELECT 1 FROM prospect_tracking WHERE message_id = $1", 1, NULL)));

	for (int i = -WARM_UP; i < atoi(argv[2]); i++)
	{
		char		message_id[64];
		double		start;

		produce(producer, message_id, sizeof message_id);
		start = now();
		wait_for_row(reader, message_id, start);
		if (i >= 0)
			printf("%.3f\n", (now() - start) * 1000);
		usleep(atoi(argv[3]) * 1000);
	}
	PQfinish(reader);
	PQfinish(producer);
	return 0;
}
