/*
 * no_gettext.c
 *		Preloaded into the backend behind AddressSanitizer's runtime: under it, glibc's
 *		bindtextdomain() was seen to wait for ever, for a lock that a library's
 *		initialization had left taken. Messages aren't translated here anyway.
 */
extern char *bindtextdomain(const char *domain, const char *directory);

char *
bindtextdomain(const char *domain, const char *directory)
{
	return (char *) directory;
}
