# sql/test_*.sql by pg_regress, against a server with the embedded broker.
use strict;
use warnings;

use NexusKafka::PgRegress;

run_installcheck('REGRESS');
