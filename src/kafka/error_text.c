/*
 * error_text.c
 *		What librdkafka complains of, in words for who runs the server.
 *
 * Its text is OpenSSL's or the broker's, written for who knows these. Where a sign in it
 * tells more, that is said, and the sign in brackets, for who looks it up.
 */
#include "kafka/internal.h"

#include <stdio.h>
#include <string.h>

#define ANY_VERSION		0x7fffffff
#define SCRAM_MENDED	0x020601ff	/* from there on the nonce is what Kafka 4 insists on */

#define lengthof(a) (sizeof(a) / sizeof((a)[0]))

typedef struct Explanation
{
	const char *sign;
	int			before;			/* of the librdkafka that runs */
	int			code;			/* what it is in truth; 0: what librdkafka says */
	const char *words;
} Explanation;

static const Explanation explanations[] = {
	/* librdkafka suspects an old version; it is rather hung, or no broker at all */
	{"ApiVersionRequest failed: Local: Timed out", ANY_VERSION, 0, "accepts connections but does not answer"},
	{"certificate verify failed", ANY_VERSION, RD_KAFKA_RESP_ERR__SSL,
	"the broker's certificate is not accepted: it has expired, is for another host name, or is not signed by a CA that is trusted (ssl.ca.location)"},
	{"alert certificate expired", ANY_VERSION, RD_KAFKA_RESP_ERR__AUTHENTICATION,
	"the broker refuses our certificate (ssl.certificate.location): it has expired"},
	{"alert unknown ca", ANY_VERSION, RD_KAFKA_RESP_ERR__AUTHENTICATION,
	"the broker refuses our certificate (ssl.certificate.location): it does not trust the CA that signed it"},
	/* Java's, for whatever is wrong with it */
	{"alert certificate unknown", ANY_VERSION, RD_KAFKA_RESP_ERR__AUTHENTICATION,
	"the broker refuses our certificate (ssl.certificate.location): it has expired, or is not signed by a CA that the broker trusts"},
	{"alert bad certificate", ANY_VERSION, RD_KAFKA_RESP_ERR__AUTHENTICATION,
	"the broker wants a certificate of ours (ssl.certificate.location), or another one"},
	{"alert certificate required", ANY_VERSION, RD_KAFKA_RESP_ERR__AUTHENTICATION,
	"the broker wants a certificate of ours (ssl.certificate.location)"},
	{"invalid credentials with SASL mechanism SCRAM-SHA-", SCRAM_MENDED, 0,
	"Authentication failed: user or password are wrong, or librdkafka is too old: Kafka 4 refuses SCRAM from all before 2.6.1"},
	{"\"status\":\"invalid_token\"", ANY_VERSION, 0,
	"Authentication failed: the broker does not accept the token of sasl.oauthbearer.token.endpoint.url"},
};

static const Explanation *
find_explanation(const char *reason)
{
	for (size_t i = 0; i < lengthof(explanations); i++)
		if (strstr(reason, explanations[i].sign) && rd_kafka_version() < explanations[i].before)
			return &explanations[i];
	return NULL;
}

void
kafka_failure_explain(KafkaFailure *failure, int code, const char *reason)
{
	const Explanation *e = find_explanation(reason);
	const char *broker_end = strstr(reason, ": ");
	char		text[sizeof(failure->text)];

	if (e == NULL)
	{
		kafka_failure_set(failure, code, reason);
		return;
	}
	snprintf(text, sizeof(text), "%.*s%s (%s)", broker_end ? (int) (broker_end + 2 - reason) : 0, reason,
			 e->words, e->sign);
	kafka_failure_set(failure, e->code ? e->code : code, text);
}

KafkaTrouble
kafka_trouble(const KafkaFailure *failure)
{
	switch (failure->code)
	{
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
			return KAFKA_TROUBLE_AUTHENTICATION;
		case RD_KAFKA_RESP_ERR__SSL:
			return KAFKA_TROUBLE_TLS;
		default:
			return KAFKA_TROUBLE_UNREACHABLE;
	}
}
