/*
 * message_id.c
 *		UUIDv7 (RFC 9562, section 5.7), with the fraction of the millisecond in
 *		rand_a (section 6.2, method 3).
 */
#include "nexus_kafka.h"

#include <time.h>

#include "utils/builtins.h"

#include "produce/produce.h"

void
make_message_id(char id[MESSAGE_ID_LENGTH + 1])
{
	static const char hex[] = "0123456789abcdef";
	unsigned char bytes[16];
	struct timespec now;
	uint64		ms;
	uint32		fraction;
	char	   *out = id;

	if (!pg_strong_random(bytes + 8, 8))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not get random bytes for a message id")));
	clock_gettime(CLOCK_REALTIME, &now);
	ms = (uint64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
	fraction = (uint32) ((now.tv_nsec % 1000000) * INT64CONST(4096) / 1000000);
	for (int i = 0; i < 6; i++)
		bytes[i] = (unsigned char) (ms >> (40 - 8 * i));
	bytes[6] = 0x70 | (fraction >> 8);
	bytes[7] = fraction & 0xff;
	bytes[8] = 0x80 | (bytes[8] & 0x3f);

	for (int i = 0; i < 16; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = hex[bytes[i] >> 4];
		*out++ = hex[bytes[i] & 15];
	}
	*out = '\0';
}
