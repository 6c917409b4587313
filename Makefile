# What a newcomer types. Meson and ninja do the work; see README.md.
#   make demo      install what is missing, build, boot Debian's kernel to a shell
#   make check     the same set-up, then every test
#   make bench     benchmarks, as ratios against native code and QEMU
#   make install   [DESTDIR=...] [prefix=/usr/local]

BUILD  ?= build
ASAN   ?= build-asan
prefix ?= /usr/local
GUESTS := artifacts

.PHONY: all setup demo check bench install clean

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

setup:
	@tools/setup

$(BUILD)/build.ninja: | setup
	@meson setup $(BUILD) --prefix=$(prefix) >/dev/null

$(ASAN)/build.ninja: | setup
	@meson setup $(ASAN) -Dbuildtype=debug -Doptimization=1 -Db_sanitize=address,undefined -Db_lundef=false >/dev/null

demo: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@tools/fetch-guests $(GUESTS) cloud busybox
	@tools/demo $(BUILD) $(GUESTS)

check: $(BUILD)/build.ninja $(ASAN)/build.ninja
	@tools/fetch-guests $(GUESTS)
	@tests/run.py $(BUILD) $(ASAN)

bench: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@bench/run $(BUILD)

install: $(BUILD)/build.ninja
	@meson configure $(BUILD) --prefix=$(prefix)
	@meson install -C $(BUILD) $(if $(DESTDIR),--destdir $(abspath $(DESTDIR)))

clean:
	rm -rf $(BUILD) $(ASAN)
