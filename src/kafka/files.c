/*
 * files.c
 *		The files that a connection's properties name: certificates, keys, CAs.
 *
 * They are renewed in their place, and the properties stay the same. So what is in
 * them is part of the connection's hash. A directory of CAs counts by its entries'
 * names, sizes and times.
 */
#include "kafka/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGEST_FILE	(16 * 1024 * 1024)	/* all that is looked at; the system's CAs are 200 KB */

/* FNV-1a, to be begun with KAFKA_HASH_SEED. */
uint64_t
kafka_hash(uint64_t hash, const void *bytes, size_t size)
{
	const unsigned char *byte = bytes;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ byte[i]) * UINT64_C(1099511628211);
	return hash;
}

static uint64_t
hash_content(uint64_t hash, int fd)
{
	char		part[4096];		/* of a key, perhaps */
	ssize_t		got;
	size_t		all = 0;

	while (all < LARGEST_FILE && (got = read(fd, part, sizeof(part))) > 0)
	{
		hash = kafka_hash(hash, part, got);
		all += got;
	}
	explicit_bzero(part, sizeof(part));
	return hash;
}

/* The sum of its entries' hashes: they come in any order. */
static uint64_t
hash_directory(uint64_t hash, int fd)
{
	DIR		   *dir = fdopendir(dup(fd));
	struct dirent *entry;
	uint64_t	sum = 0;

	while (dir && (entry = readdir(dir)) != NULL)
	{
		struct stat st;
		uint64_t	one = kafka_hash(KAFKA_HASH_SEED, entry->d_name, strlen(entry->d_name));

		if (fstatat(fd, entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode))
		{
			one = kafka_hash(one, &st.st_size, sizeof(st.st_size));
			sum += kafka_hash(one, &st.st_mtim, sizeof(st.st_mtim));
		}
	}
	if (dir)
		closedir(dir);
	return kafka_hash(hash, &sum, sizeof(sum));
}

/* Of one that can't be read: why. */
static uint64_t
hash_file(uint64_t hash, const char *path)
{
	int			fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		hash = kafka_hash(hash, &errno, sizeof(errno));
	else if (S_ISREG(st.st_mode))
		hash = hash_content(hash, fd);
	else if (S_ISDIR(st.st_mode))
		hash = hash_directory(hash, fd);
	if (fd >= 0)
		close(fd);
	return hash;
}

static bool
names_file(const char *property)
{
	size_t		len = strlen(property);

	return len > 9 && strcmp(property + len - 9, ".location") == 0;
}

uint64_t
kafka_files_hash(const KafkaProperties *properties)
{
	uint64_t	hash = KAFKA_HASH_SEED;

	for (size_t i = 0; i < properties->n; i++)
		if (names_file(properties->settings[i].name))
			hash = hash_file(hash, properties->settings[i].value);
	return hash;
}
