# nexus_kafka: PGXS build. The tests are run by test/run; installcheck here needs a
# running server and is what test/run calls for its parts "regress" and "isolation".

MODULE_big = nexus_kafka
EXTENSION = nexus_kafka
DATA = $(wildcard sql/nexus_kafka--*.sql)
PGFILEDESC = "nexus_kafka - Kafka in PostgreSQL"

SOURCES = $(wildcard src/*.c src/*/*.c)
OBJS = $(SOURCES:.c=.o)

REGRESS = $(basename $(notdir $(wildcard sql/test_*.sql)))
REGRESS_OPTS = --inputdir=. --load-extension=nexus_kafka
ISOLATION = $(basename $(notdir $(wildcard specs/*.spec)))
ISOLATION_OPTS = --inputdir=. --load-extension=nexus_kafka

PKG_CONFIG ?= pkg-config
PG_CPPFLAGS = -I$(CURDIR)/src $(shell $(PKG_CONFIG) --cflags rdkafka)
SHLIB_LINK = $(shell $(PKG_CONFIG) --libs rdkafka) -lpthread

# make WERROR=1 (as test/run does): warnings are errors.
PG_CFLAGS = -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
ifdef WERROR
PG_CFLAGS += -Werror
endif

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# Each object follows every header: the tree is small, and a stale object is a crash.
$(OBJS): $(wildcard src/*.h src/*/*.h)
