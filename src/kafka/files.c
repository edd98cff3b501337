/*
 * files.c
 *		The files that a connection's properties name: certificates, keys, CAs.
 *
 * They are renewed in their place, and the properties stay the same. So what is in
 * them is part of the connection's hash. A directory of CAs counts by its entries'
 * names, sizes and times. Those that have a private key must be kept as secret as the
 * file with the properties itself.
 *
 * librdkafka opens them by their names, and each handle does so anew, some of them long
 * after the properties were read. So how they are kept is looked at before each.
 */
#include "kafka/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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

/*
 * PostgreSQL's rule for the server's own key. Symbolic links have been followed: a mounted
 * secret of Kubernetes is one, and root's, whose group may read it.
 */
const char *
kafka_secret_file_fault(const struct stat *st)
{
	if (!S_ISREG(st->st_mode))
		return "is not a regular file";
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return "must belong to the user that the server runs as, or to root";
	if (st->st_uid == geteuid() && st->st_mode & (S_IRWXG | S_IRWXO))
		return "may be read by others than its owner: chmod 600";
	if (st->st_mode & (S_IWGRP | S_IXGRP | S_IRWXO))
		return "belongs to root, and may be read by others than its group, or written by it: chmod 640";
	return NULL;
}

/* A pipe would have librdkafka wait for ever. */
static const char *
file_fault(const struct stat *st, bool secret)
{
	if (secret)
		return kafka_secret_file_fault(st);
	return S_ISREG(st->st_mode) || S_ISDIR(st->st_mode) ? NULL : "is neither a regular file nor a directory";
}

/*
 * What is wrong with the file, or NULL. That it can't be opened librdkafka will tell; why
 * not counts for the hash.
 */
static const char *
look_at_file(const char *path, bool secret, uint64_t *hash)
{
	int			fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	const char *fault = NULL;

	if (fd < 0 || fstat(fd, &st) != 0)
		*hash = kafka_hash(*hash, &errno, sizeof(errno));
	else if ((fault = file_fault(&st, secret)) != NULL)
		;
	else if (S_ISREG(st.st_mode))
		*hash = hash_content(*hash, fd);
	else
		*hash = hash_directory(*hash, fd);
	if (fd >= 0)
		close(fd);
	return fault;
}

static bool
names_file(const char *property)
{
	size_t		len = strlen(property);

	return len > 9 && strcmp(property + len - 9, ".location") == 0;
}

static bool
names_key(const char *property)
{
	return strcmp(property, "ssl.key.location") == 0 || strcmp(property, "ssl.keystore.location") == 0;
}

const char *
kafka_files_check(const KafkaProperties *properties, uint64_t *hash, const char **property)
{
	*hash = KAFKA_HASH_SEED;
	for (size_t i = 0; i < properties->n; i++)
	{
		const KafkaSetting *setting = &properties->settings[i];
		const char *fault;

		if (!names_file(setting->name) || kafka_properties_get(properties, setting->name) != setting->value)
			continue;
		fault = look_at_file(setting->value, names_key(setting->name), hash);
		*property = setting->name;
		if (fault)
			return fault;
	}
	return NULL;
}

bool
kafka_files_are_kept(const rd_kafka_conf_t *conf, char *why, size_t size)
{
	static const char *const names[] = {"ssl.key.location", "ssl.keystore.location", "ssl.certificate.location",
	"ssl.ca.location", "ssl.crl.location", "https.ca.location"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		char		path[4096];
		size_t		path_size = sizeof(path);
		struct stat st;
		const char *fault;

		if (rd_kafka_conf_get(conf, names[i], path, &path_size) != RD_KAFKA_CONF_OK || stat(path, &st) != 0)
			continue;			/* not set, or not there: librdkafka will tell */
		fault = file_fault(&st, names_key(names[i]));
		if (fault)
		{
			snprintf(why, size, "%s names a file that %s", names[i], fault);
			return false;
		}
	}
	return true;
}
