/*
 * ubsan_options.c
 *		Preloaded into the server in front of UndefinedBehaviorSanitizer's runtime: its options.
 *
 * It reads them with the first error. Where its environment stood, a server process has its
 * title by then. Behind AddressSanitizer's runtime it takes that one's functions for its
 * own: it would set that one's path for reports, and does, to a file of a name not yet used.
 * So its own path is set here.
 */
#include <dlfcn.h>
#include <stddef.h>

extern const char *__ubsan_default_options(void);

const char *
__ubsan_default_options(void)
{
	return UBSAN_OPTIONS ":log_path=" UBSAN_REPORTS ".address";
}

__attribute__((constructor)) static void
set_report_path(void)
{
	void	   *runtime = dlopen(UBSAN_RUNTIME, RTLD_LAZY | RTLD_NOLOAD);
	void		(*set_path) (const char *) = runtime ? dlsym(runtime, "__sanitizer_set_report_path") : NULL;

	if (set_path)
		set_path(UBSAN_REPORTS);
}
