/*
 * fuzz_contract.c
 *		The prospect's contract: any jsonb is refused with 22023, or can be enriched; then
 *		what is published keeps to the contract, and has everything that came.
 *
 * Input: the payload as JSON text.
 */
#include "nexus_kafka.h"

#include "harness.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "exact_palloc.h"
#include "produce/produce.h"

#define MESSAGE_ID	"0190a0a0-0000-7000-8000-000000000000"

extern Datum nexus_valid_prospect(PG_FUNCTION_ARGS);

typedef struct Payload
{
	const uint8 *text;
	size_t		size;
	Jsonb	   *jsonb;
	StringInfoData published;
} Payload;

static void
read_payload(void *arg)
{
	Payload    *p = arg;

	p->jsonb = jsonb_of_text((const char *) p->text, p->size);
}

static void
check_payload(void *arg)
{
	contract_check_payload(arg);
}

static void
check_as_pipeline(void *arg)
{
	(void) DirectFunctionCall1(nexus_valid_prospect, JsonbPGetDatum(arg));
}

static bool
refusal(int sqlstate)
{
	return sqlstate == ERRCODE_INVALID_PARAMETER_VALUE;
}

static JsonbValue *
field(JsonbContainer *object, const char *name)
{
	return getKeyJsonValueFromContainer(object, name, strlen(name), NULL);
}

static bool
is_string(const JsonbValue *v, const char *text)
{
	return v && v->type == jbvString && v->val.string.len == strlen(text) &&
		memcmp(v->val.string.val, text, v->val.string.len) == 0;
}

/* What came is in what is published, but for what is added, and for null where that has something. */
static void
expect_fields(JsonbContainer *came, JsonbContainer *published, const char *const *added)
{
	JsonbIterator *it = JsonbIteratorInit(came);
	JsonbValue	name;
	JsonbValue	value;

	(void) JsonbIteratorNext(&it, &name, true);
	while (JsonbIteratorNext(&it, &name, true) == WJB_KEY)
	{
		char	   *text = pnstrdup(name.val.string.val, name.val.string.len);
		JsonbValue *v = field(published, text);
		bool		is_added = false;

		(void) JsonbIteratorNext(&it, &value, true);
		for (int i = 0; added[i]; i++)
			is_added = is_added || strcmp(added[i], text) == 0;
		expect(v != NULL, "%s has gone", text);
		expect(is_added || value.type == jbvNull ||
			   same_jsonb(JsonbValueToJsonb(v), JsonbValueToJsonb(&value)), "%s is another", text);
	}
}

static void
expect_metadata(JsonbContainer *came, JsonbContainer *published)
{
	static const char *const added[] = {"enqueuedAt", "producerVersion", NULL};
	static const char *const names[] = {"url", "userAgent", "enqueuedAt", NULL};

	for (int i = 0; names[i]; i++)
		expect(field(published, names[i]) && field(published, names[i])->type != jbvNull, "no metadata.%s", names[i]);
	expect(is_string(field(published, "producerVersion"), NEXUS_VERSION), "another producerVersion");
	if (came)
		expect_fields(came, published, added);
}

/* Each name stands once: printed by PostgreSQL, it is as long. */
static void
expect_published(void *arg)
{
	static const char *const added[] = {"metadata", "messageId", NULL};
	Payload    *p = arg;
	Jsonb	   *published = jsonb_of_text(p->published.data, p->published.len);
	JsonbValue *before = field(&p->jsonb->root, "metadata");
	JsonbValue *after = field(&published->root, "metadata");

	expect(strlen(text_of_jsonb(published)) == p->published.len, "a name stands twice: %s", p->published.data);
	expect(is_string(field(&published->root, "messageId"), MESSAGE_ID), "another messageId");
	expect(after && after->type == jbvBinary, "no metadata");
	expect_fields(&p->jsonb->root, &published->root, added);
	expect_metadata(before && before->type == jbvBinary ? before->val.binary.data : NULL, after->val.binary.data);
	expect(passes(check_payload, published, nothing), "what is published breaks the contract");
	expect(passes(check_as_pipeline, published, nothing), "what is published isn't taken in");
	expect_sound(published);
}

void
fuzz_contract(const uint8 *data, size_t size)
{
	Payload		p = {data, size};

	if (!passes(read_payload, &p, error_of_data))
		return;
	if (!passes(check_payload, p.jsonb, refusal))
	{
		(void) passes(check_as_pipeline, p.jsonb, refusal);
		return;
	}
	expect(passes(check_as_pipeline, p.jsonb, nothing), "accepted, but not what the pipeline takes");
	initStringInfo(&p.published);
	contract_enrich(p.jsonb, MESSAGE_ID, &p.published);
	(void) passes(expect_published, &p, too_deep);
}
