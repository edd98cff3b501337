/*
 * harness.c
 *		libFuzzer inside a backend: what decodes messages and checks the contract needs
 *		PostgreSQL's jsonb, memory and errors, and Debian ships these as a server only.
 *
 * The SQL function fuzz(target, arguments) calls libFuzzer's driver, which calls the
 * target with one input after the other. backend starts the server for it, a standalone
 * one under AddressSanitizer's runtime. What a target may raise is caught and forgotten;
 * of everything else libFuzzer keeps the input, as of a crash.
 */
#include "harness.h"

#include <signal.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "exact_palloc.h"
#include "ingest/ingest.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(fuzz);

/* libFuzzer's, of which no header comes along. */
extern int	LLVMFuzzerRunDriver(int *argc, char ***argv, int (*run) (const uint8 *data, size_t size));

typedef struct Target
{
	const char *name;
	void		(*run) (const uint8 *data, size_t size);
} Target;

static const Target targets[] = {
	{"contract", fuzz_contract},
	{"headers", fuzz_headers},
	{"messages", fuzz_messages},
};

static const Target *target;
static MemoryContext run_context;

/* ---- findings ---- */

void
finding(const char *text,...)
{
	va_list		args;

	va_start(args, text);
	fprintf(stderr, "finding: ");
	vfprintf(stderr, text, args);
	fprintf(stderr, "\n");
	va_end(args);
	abort();
}

bool
passes(void (*body) (void *), void *arg, bool (*may_raise) (int sqlstate))
{
	MemoryContext context = CurrentMemoryContext;
	bool		passed = false;

	PG_TRY();
	{
		body(arg);
		passed = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		expect(may_raise(error->sqlerrcode), "SQLSTATE %s: %s",
			   unpack_sql_state(error->sqlerrcode), error->message);
	}
	PG_END_TRY();
	return passed;
}

bool
nothing(int sqlstate)
{
	return false;
}

bool
error_of_data(int sqlstate)
{
	return triage(sqlstate) == ERROR_OF_DATA;
}

bool
too_deep(int sqlstate)
{
	return sqlstate == ERRCODE_STATEMENT_TOO_COMPLEX;
}

/* ---- bytes as PostgreSQL's values, and back ---- */

char *
exact_copy(const void *data, size_t size, bool terminated)
{
	char	   *copy = exact_palloc(size + (terminated ? 1 : 0));

	memcpy(copy, data, size);
	if (terminated)
		copy[size] = '\0';
	return copy;
}

Jsonb *
jsonb_of_text(const char *text, size_t size)
{
	char	   *utf8 = pg_any_to_server(exact_copy(text, size, true), size, PG_UTF8);

	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(utf8)));
}

char *
text_of_jsonb(Jsonb *jsonb)
{
	return JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
}

bool
same_jsonb(Jsonb *a, Jsonb *b)
{
	return compareJsonbContainers(&a->root, &b->root) == 0;
}

static void
expect_to_read_the_same(void *arg)
{
	Jsonb	   *jsonb = arg;
	char	   *text = text_of_jsonb(jsonb);

	expect(same_jsonb(jsonb, jsonb_of_text(text, strlen(text))), "reads differently: %s", text);
}

/* It may be that it was just not too deep when it was read first, higher up the stack. */
void
expect_sound(Jsonb *jsonb)
{
	(void) passes(expect_to_read_the_same, jsonb, too_deep);
}

/* ---- running ---- */

typedef struct Input
{
	const uint8 *data;
	size_t		size;
} Input;

static void
run_target(void *arg)
{
	Input	   *input = arg;

	target->run(input->data, input->size);
}

static int
run_once(const uint8 *data, size_t size)
{
	Input		input = {data, size};
	MemoryContext before = MemoryContextSwitchTo(run_context);

	(void) passes(run_target, &input, nothing);
	MemoryContextSwitchTo(before);
	MemoryContextReset(run_context);
	exact_reset();
	return 0;
}

/* libFuzzer leaves signals alone that have a handler, and these tell of hangs and crashes. */
static void
give_up_signals(void)
{
	static const int signals[] = {SIGALRM, SIGFPE, SIGINT, SIGTERM};

	for (int i = 0; i < lengthof(signals); i++)
		pqsignal(signals[i], SIG_DFL);
}

/* The first argument is the command that this process was started by: -merge=1 runs it again. */
static char **
driver_arguments(ArrayType *array, int *n)
{
	Datum	   *elements;
	char	  **arguments;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, n);
	arguments = palloc0((*n + 1) * sizeof(char *));
	for (int i = 0; i < *n; i++)
		arguments[i] = TextDatumGetCString(elements[i]);
	return arguments;
}

Datum
fuzz(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int			n;
	char	  **arguments = driver_arguments(PG_GETARG_ARRAYTYPE_P(1), &n);

	for (int i = 0; i < lengthof(targets); i++)
		if (strcmp(targets[i].name, name) == 0)
			target = &targets[i];
	if (target == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no target \"%s\"", name)));
	run_context = AllocSetContextCreate(CurrentMemoryContext, "fuzz", ALLOCSET_DEFAULT_SIZES);
	give_up_signals();
	ExitOnAnyError = false;		/* from here on errors are the targets', and caught */
	PG_RETURN_INT32(LLVMFuzzerRunDriver(&n, &arguments, run_once));
}
