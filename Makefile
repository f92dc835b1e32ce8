# Two commands: `make run` serves Stenograf, `make test` runs its tests (`make quick` the fast ones). All set up what they
# need first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# A venv that failed half-way leaves a python without pip, which would count as made.
.DELETE_ON_ERROR:

# PostgreSQL and Redis have packages of their own, for whom DATABASE_URL or CELERY_BROKER_URL (in the environment or in
# .env) names one.
asked = $(if $(filter undefined,$(origin $(1))),$(shell sed -nE "s/^(export )? *$(1) *= *[\"']?([a-z]*:).*/\2/p" .env 2>/dev/null),$(value $(1)))
SCALE := $(filter postgres:% postgresql:%,$(call asked,DATABASE_URL))$(filter redis:% rediss:%,$(call asked,CELERY_BROKER_URL))
INSTALLED_SCALE := $(if $(SCALE),$(VENV)/.installed-scale)

.PHONY: run test test-scale quick lint types messages clean

run: $(VENV)/.installed $(INSTALLED_SCALE)
	$(BIN)/python manage.py serve

# On all cores. SLOW=1 adds the tests that take minutes each: real speech at length, half-hour recordings, the soak.
# To look into one: `.venv/bin/python -m pytest tests/test_queue.py -k claim` runs in one process.
test: $(VENV)/.installed-dev $(INSTALLED_SCALE)
	SLOW=$(SLOW) $(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder

# For the work in hand: without servers, browsers and other programs, in less than a minute.
quick: $(VENV)/.installed-dev $(INSTALLED_SCALE)
	$(BIN)/python -m pytest -q -n auto --dist loadgroup --no-loadscope-reorder -m "not heavy"

# What depends on the database and the broker, on the PostgreSQL and Redis of DATABASE_URL and CELERY_BROKER_URL.
SCALE_TESTS := $(wildcard tests/test_queue*.py) tests/test_jobs.py tests/test_waiting.py tests/test_retention.py \
  tests/test_doctor.py $(filter-out %/test_schema.py,$(wildcard tests/api/test_*.py)) \
  $(filter-out %/test_thirty_minutes.py %/test_fairness.py %/test_waiting_clients.py,$(wildcard tests/faults/test_*.py))
test-scale: $(VENV)/.installed-dev $(VENV)/.installed-scale
	SLOW=1 $(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder $(SCALE_TESTS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Both systems that Stenograf runs on, whichever this one is.
types: $(VENV)/.installed-dev
	$(BIN)/mypy --platform linux
	$(BIN)/mypy --platform darwin

# For those who change a sentence: needs gettext.
messages: $(VENV)/.installed-dev
	$(BIN)/python manage.py makemessages --locale ru --no-wrap --no-obsolete --add-location file --ignore .venv
	$(BIN)/python manage.py compilemessages --locale ru --ignore .venv

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Stenograf needs Python 3.11 or newer. Say which one to use: make run PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-scale: requirements-scale.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary psycopg-binary -r requirements-scale.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-mlx-linux.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@[ "$$(uname)" != Linux ] || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-mlx-linux.txt || \
	  echo "No MLX for this machine: the tests of mlx-whisper will be skipped."
	touch $@
