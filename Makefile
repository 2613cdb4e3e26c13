# prima: build, test, demo. `make help` lists the targets.
#
#   make                    ./prima, release build (needs `make deps` once)
#   make test T=test_gguf   only the tests whose path contains T
#   MODE=release|asan|tsan|fuzz|aarch64|emulate|emulate-asan   objects go to build/$(MODE)/
#   CUDA=auto|0|1           code for GPUs: where nvcc is found, never, or stop without nvcc
#                           (MODE=emulate: with a GPU that is emulated on the CPU, tests/gpu/emulate)

MODE ?= release
B    := build/$(MODE)
T    ?=
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
FUZZ_SECONDS ?= 60
SUITE ?= decode
SHELL := /bin/bash
# Commands are shown as "  CC file"; V=1 shows them whole, make -s nothing.
QUIET := $(findstring s,$(firstword -$(MAKEFLAGS)))
say = $(if $(V),$(2),@$(if $(QUIET),,echo "  $(1) $@" &&) $(2))

# Debian packages by purpose: what builds ./prima, what builds and runs the tests, what `lint` and `plots` call.
# OpenBLAS is no part of the build: `prima profile` and `prima bench kernels` look for it, as a yardstick.
DEPS_LIBS  := libjansson-dev libpcre2-dev libssl-dev libyaml-dev libglpk-dev libcurl4-openssl-dev liburing-dev
DEPS       := gcc make pkg-config libc6-dev $(DEPS_LIBS) libopenblas0
DEPS_TEST  := g++ libcriterion-dev python3 openssl nginx-light curl qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
DEPS_LINT  := clang-format cppcheck
DEPS_BOX   := iproute2 openssh-server
DEPS_FUZZ  := clang
DEPS_PLOTS := gnuplot-nox

# --- compiler --------------------------------------------------------------------------------
ARCH := $(patsubst arm64,aarch64,$(shell uname -m))
ifeq ($(MODE),aarch64)
  ARCH := aarch64
  CC   := aarch64-linux-gnu-gcc
  AR   := aarch64-linux-gnu-ar
endif
OPT := -O2 -g
EMULATE := $(filter emulate emulate-asan,$(MODE))
ifneq ($(filter asan emulate-asan,$(MODE)),)
  OPT := -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
endif
ifeq ($(MODE),tsan)
  OPT := -O1 -g -fsanitize=thread
endif
ifeq ($(MODE),fuzz)
  CC  := clang
  OPT := -O1 -g -fsanitize=address,undefined,fuzzer-no-link -fno-omit-frame-pointer -fno-sanitize-recover=undefined
endif
VERSION  := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
WARN     := -Wall -Wextra -Wshadow -Wvla -Wmissing-prototypes -Wstrict-prototypes -Wpointer-arith
# Warnings are errors where the code is written; sanitizers and other compilers warn about things that are not there.
WERROR   ?= $(if $(filter release aarch64 emulate,$(MODE)),-Werror)
CFLAGS   += -std=c11 $(OPT) $(WARN) $(WERROR) -ffp-contract=off -fno-math-errno -pthread
CPPFLAGS += -I. -D_GNU_SOURCE -MMD -MP
LDFLAGS  += -pthread
PKGS     := jansson libpcre2-8 openssl yaml-0.1 libcurl
LDLIBS   := -lm -ldl
# The cross compiler has no libraries but libc; `make sysroot` unpacks the others.
SYSROOT  := build/sysroot-arm64
ifeq ($(MODE),aarch64)
  CROSS_LIBS := $(if $(wildcard $(SYSROOT)/complete),$(SYSROOT)/usr/lib/aarch64-linux-gnu)
  ifneq ($(CROSS_LIBS),)
    CPPFLAGS += $(addprefix -isystem $(SYSROOT)/usr/include,/ /aarch64-linux-gnu)
    LDFLAGS  += -Wl,-rpath-link,$(CROSS_LIBS):$(SYSROOT)/lib/aarch64-linux-gnu
    LDLIBS   += -L$(CROSS_LIBS) -ljansson -lpcre2-8 -lssl -lcrypto -lyaml -lglpk -lcurl
    URING    := 1
  endif
else
  CPPFLAGS += $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
  LDLIBS   += $(shell pkg-config --libs $(PKGS) 2>/dev/null || echo -ljansson -lpcre2-8 -lssl -lcrypto -lyaml -lcurl) -lglpk
  URING    := $(shell pkg-config --exists liburing 2>/dev/null && echo 1)
endif
# io_uring is Linux's alone; without its library a pool of threads reads.
ifneq ($(URING),)
  CPPFLAGS += -DPRIMA_URING
  LDLIBS   += -luring
endif
TEST_LIBS := $(shell pkg-config --libs criterion 2>/dev/null || echo -lcriterion)

# --- CUDA: used where nvcc is found, in the release build only -----------------------------------
# Sought in $(CUDA_HOME) when that is set, else in PATH, else in /usr/local/cuda. The runtime is linked statically
# and looks for the driver itself, so the program starts everywhere. The sanitizers do not get along with the driver.
# Machine code for each of CUDA_ARCHS, which others of the same generation run, too (8.6 and 8.9 that of 8.0); newer
# GPUs get the last one's PTX, which the driver compiles when it is first used, and keeps.
CUDA       ?= auto
CUDA_ARCHS ?= 75 80 90
NVCC       :=
ifneq ($(CUDA),0)
  ifeq ($(MODE),release)
    NVCC := $(realpath $(if $(CUDA_HOME),$(wildcard $(CUDA_HOME)/bin/nvcc),\
                $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))))
    ifeq ($(CUDA)$(NVCC),1)
      $(error CUDA=1, but there is no nvcc in $(if $(CUDA_HOME),$(CUDA_HOME)/bin,PATH or /usr/local/cuda/bin))
    endif
  endif
endif
ifneq ($(NVCC),)
  CUDA_ROOT  := $(patsubst %/bin/nvcc,%,$(NVCC))
  # Those that this toolkit knows.
  NVCC_KNOWS := $(patsubst sm_%,%,$(shell $(NVCC) --list-gpu-code))
  CUDA_SM    := $(filter $(NVCC_KNOWS),$(CUDA_ARCHS))
  ifeq ($(CUDA_SM),)
    $(error CUDA_ARCHS=$(CUDA_ARCHS): $(NVCC) knows none of these, but $(NVCC_KNOWS))
  endif
  NVCC_FLAGS := -std=c++17 -O3 -I. -fmad=false --threads 0 -Werror all-warnings \
                -Xcompiler=-Wall,-Wextra,-Werror,-fno-exceptions,-fno-rtti \
                $(foreach a,$(CUDA_SM),-gencode arch=compute_$(a),code=sm_$(a)) \
                -gencode arch=compute_$(lastword $(CUDA_SM)),code=compute_$(lastword $(CUDA_SM))
  CPPFLAGS   += -DPRIMA_CUDA
  DEPS       += g++
  # libsupc++ is the part of g++'s library that nvcc's host code needs; it is static.
  LDLIBS     += $(addprefix -L,$(wildcard $(CUDA_ROOT)/lib64)) -lcudart_static -lsupc++ -ldl -lrt
  CUDA_STATE := CUDA for $(addprefix sm_,$(CUDA_SM)) by $(NVCC)
else ifneq ($(EMULATE),)
  # kernels/cuda on the CPU: its C files as they are, its .cu files as C++ (tests/gpu/emulate).
  CPPFLAGS   += -DPRIMA_CUDA -Itests/gpu/emulate
  CXX_FLAGS  := -std=c++17 $(OPT) -Wall -Wextra -Wno-unknown-pragmas $(WERROR) -I. -Itests/gpu/emulate -MMD -MP \
                -fno-exceptions -fno-rtti -fno-strict-aliasing -ffp-contract=off -fno-math-errno \
                -fno-sanitize=vptr -x c++ -include tests/gpu/emulate/kernel.h
  LDLIBS     += -lsupc++
  CUDA_STATE := an emulated GPU
else
  CUDA_STATE := no CUDA$(if $(filter 0,$(CUDA)),,$(if $(filter release,$(MODE)), (no nvcc found), in this mode))
endif
$(B)/kernels/cuda/%.o:      private CPPFLAGS += $(if $(NVCC),-isystem $(CUDA_ROOT)/include)
$(B)/tests/gpu/%.o:         private CPPFLAGS += $(if $(NVCC),-isystem $(CUDA_ROOT)/include)
$(B)/kernels/cuda/device.o: private CPPFLAGS += \
  -DPRIMA_CUDA_ARCHS='"$(if $(EMULATE),an emulated GPU,$(addprefix sm_,$(CUDA_SM)) and newer)"'

# Instruction sets by folder; nothing else is built with ISA flags. ("private": not for the prerequisites.)
ISA_DIRS_x86_64  := kernels/avx2 kernels/avx512 kernels/amx
ISA_DIRS_aarch64 := kernels/neon kernels/i8mm
$(B)/kernels/avx2/%.o:   private CFLAGS += -mavx2 -mfma -mf16c
AVX512_FLAGS := -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
$(B)/kernels/avx512/%.o: private CFLAGS += $(AVX512_FLAGS)
$(B)/kernels/amx/%.o:    private CFLAGS += $(AVX512_FLAGS) -mamx-tile -mamx-int8
$(B)/tests/kernels/test_tiles.o: private CFLAGS += $(if $(filter x86_64,$(ARCH)),$(AVX512_FLAGS))
$(B)/kernels/neon/%.o:   private CFLAGS += -march=armv8.2-a+dotprod+fp16
$(B)/kernels/i8mm/%.o:   private CFLAGS += -march=armv8.2-a+dotprod+fp16+i8mm
$(B)/kernels/%.o:        private CFLAGS += -O3

# --- sources: one archive per layer, in the order in which they may depend on each other -------
base_DIRS    := src/base
kernels_DIRS := kernels kernels/ref $(ISA_DIRS_$(ARCH)) $(if $(NVCC)$(EMULATE),kernels/cuda) $(if $(EMULATE),tests/gpu/emulate)
model_DIRS   := src/model
net_DIRS     := net
planner_DIRS := planner
run_DIRS     := src/run
pull_DIRS    := src/pull
cmd_DIRS     := src
# Without libraries the cross build makes the kernels and what they stand on.
SKIP := src/main.c $(if $(filter aarch64,$(MODE)),$(if $(CROSS_LIBS),,src/base/json.c src/base/hash.c)) \
        $(if $(NVCC)$(EMULATE),kernels/cuda_none.c)
srcs = $(sort $(foreach d,$($(1)_DIRS),$(filter-out $(SKIP),$(wildcard $(d)/*.c $(d)/*.cu))))
objs = $(patsubst %.c,$(B)/%.o,$(patsubst %.cu,$(B)/%.cu.o,$(call srcs,$(1))))
ALL_LAYERS := cmd pull run planner net model kernels base
LAYERS     := $(foreach l,$(ALL_LAYERS),$(if $(call srcs,$(l)),$(l)))
archives    = $(foreach l,$(filter $(1),$(LAYERS)),$(B)/$(l).a)

# A test program in tests/LAYER/ links that layer and the ones below it: what does not link
# has broken the direction of dependencies.
NEEDS_base    := base
NEEDS_kernels := kernels base
NEEDS_model   := model kernels base
NEEDS_net     := net base
NEEDS_planner := planner base
NEEDS_run     := run planner net model kernels base
NEEDS_pull    := pull planner net model kernels base
NEEDS_cmd     := $(ALL_LAYERS)
NEEDS_gpu     := model kernels base

.PHONY: all
all: prima ## ./prima (the default)

prima: $(B)/prima
	@ln -sf $< $@

$(B)/prima: $(B)/src/main.o $(call archives,$(ALL_LAYERS))
	$(call say,LD,$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS))

.PHONY: sysroot prima-aarch64
sysroot: ## what `make prima-aarch64` needs besides the compiler: arm64 libraries, in build/ only (20 MB from Debian)
	@.ci/sysroot arm64 $(SYSROOT) $(DEPS_LIBS)
prima-aarch64: sysroot ## build/aarch64/prima by Debian's cross compiler; runs under `qemu-aarch64 -L build/sysroot-arm64`
	$(AGAIN) MODE=aarch64 build/aarch64/prima

# An archive is made again also when a source is gone.
define layer_rule
$(B)/$(1).a: $(call objs,$(1)) $(B)/$(1).list
	@rm -f $$@
	$$(call say,AR,$(AR) rcs $$@ $$(filter %.o,$$^))
$(B)/$(1).list: FORCE
	$$(call keep_current,$(call objs,$(1)))
endef
$(foreach l,$(LAYERS),$(eval $(call layer_rule,$(l))))

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<)

ifneq ($(EMULATE),)
# Static __shared__ arrays, found again by the name of their section.
$(B)/%.cu.o: %.cu $(B)/nvcc-flags
	@mkdir -p $(@D)
	$(call say,CXX,g++ $(CXX_FLAGS) -MF $(@:.o=.d) -MT $@ -c -o $@ $<)
	@objcopy --rename-section .bss=emu_shared,alloc,load,data,contents $@
else
$(B)/%.cu.o: %.cu $(B)/nvcc-flags
	@mkdir -p $(@D)
	$(call say,NVCC,$(NVCC) $(NVCC_FLAGS) -MMD -MP -MF $(@:.o=.d) -MT $@ -c -o $@ $<) \
	  || { echo "nvcc failed (make CUDA=0 builds without it)" >&2; exit 1; }
endif

# Objects are made again when the flags change; the version is compiled into one file only. These files
# are looked at in every build and written only when their content changes.
define keep_current
	@mkdir -p $(@D)
	@echo '$(1)' | cmp -s - $@ || { $(2) echo '$(1)' > $@; }
endef
$(B)/flags: FORCE
	$(call keep_current,$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) $(LDLIBS),$(if $(QUIET),,echo "  $(MODE) build for $(ARCH) with $(CC); $(CUDA_STATE)";))
$(B)/nvcc-flags: FORCE
	$(call keep_current,$(if $(EMULATE),g++ $(CXX_FLAGS),$(NVCC) $(NVCC_FLAGS)))
$(B)/version: FORCE
	$(call keep_current,$(VERSION))
$(B)/src/main.o: $(B)/version
$(B)/src/main.o: private CPPFLAGS += -DPRIMA_VERSION='"$(VERSION)"'
.PHONY: FORCE
FORCE:

# --- dependencies ------------------------------------------------------------------------------
.PHONY: deps deps-test deps-lint deps-fuzz deps-plots
deps: ## install the Debian packages that the build needs (sudo only when not root)
	@.ci/deps $(DEPS)
deps-test: ## the same for the build and `make test`
	@.ci/deps $(DEPS) $(DEPS_TEST)
ifneq ($(ARCH),aarch64)
	@timeout 100 $(MAKE) -s sysroot || echo "Going on without arm64 libraries: tests/cmd/test_aarch64 will be skipped."
endif
deps-lint: ## the same for `make lint`
	@.ci/deps make $(DEPS_LINT)
deps-fuzz: ## the same for `make fuzz`
	@.ci/deps $(DEPS) $(DEPS_FUZZ)
deps-plots: ## the same for `make plots`
	@.ci/deps $(DEPS_PLOTS)

# The targets below install first and call make again, which then finds the new compiler and libraries.
AGAIN = @$(MAKE) --no-print-directory -j$(JOBS)

# --- tests (tests/README.md) -------------------------------------------------------------------
# tests/gpu run on an emulated GPU everywhere, by a build of their own, and on a GPU where there is one (as it seems).
GPU_HERE   := $(if $(NVCC),$(wildcard /dev/nvidiactl /dev/dxg))
EMULATOR   := $(if $(filter release asan,$(MODE)),$(if $(shell command -v g++),emulate$(patsubst %,-%,$(filter asan,$(MODE)))))
TEST_BINS  := $(patsubst tests/%.c,$(B)/tests/%,$(filter-out $(if $(GPU_HERE)$(EMULATE),,tests/gpu/%),$(wildcard tests/*/test_*.c))) \
              $(if $(EMULATOR),$(patsubst tests/%.c,build/$(EMULATOR)/tests/%,$(wildcard tests/gpu/test_*.c)))
FUZZ_BINS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/fuzz/fuzz_*.c))
TSAN_BINS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/tsan/*.c))
SCRIPTS   := tests/check-layers $(wildcard tests/*/*.test.sh)
select = $(if $(T),$(foreach t,$(1),$(if $(findstring $(T),$(t)),$(t))),$(1))
# neon_check runs every instruction set that is here; under ASan it also sees reads past the end of a page.
TESTS := $(call select,$(SCRIPTS) $(TEST_BINS) $(B)/tests/kernels/neon_check $(FUZZ_BINS))
# Tests that call the finished program; the others build and run while it does not compile.
NEED_PRIMA := $(filter-out tests/check-layers tests/tools/% tests/kernels/% tests/gpu/%,$(filter tests/%,$(TESTS))) \
              $(filter $(B)/tests/cmd/%,$(TESTS))

.PHONY: test run-tests asan tsan run-tsan fuzz run-fuzz lint
test: deps-test ## build and run all tests; T=substring selects by path
	$(AGAIN) run-tests

EMULATED_TESTS := $(if $(EMULATOR),$(filter build/$(EMULATOR)/%,$(TESTS)))
.PHONY: emulated-tests
emulated-tests:
	@$(MAKE) --no-print-directory MODE=$(EMULATOR) $(EMULATED_TESTS)

run-tests: $(filter $(B)/%,$(TESTS)) $(if $(EMULATED_TESTS),emulated-tests) $(if $(strip $(NEED_PRIMA)),$(B)/prima) \
           $(if $(filter tests/cluster/%,$(TESTS)),$(B)/tests/cluster/relay) \
           $(if $(filter tests/pull/%,$(TESTS)),$(B)/tests/pull/fault_server)
	@BUILD=$(B) PRIMA=$(CURDIR)/$(B)/prima tests/run-tests $(TESTS)

# Leaks are found when a test's process has ended, too late for Criterion: every report is a file, looked at afterwards.
asan: deps-test ## the same tests under AddressSanitizer and UBSan
	@mkdir -p build/asan && rm -f build/asan/report.*
	@export ASAN_OPTIONS=log_path=$(CURDIR)/build/asan/report:detect_leaks=1 LSAN_OPTIONS=exitcode=0 \
	  UBSAN_OPTIONS=log_path=$(CURDIR)/build/asan/report:print_stacktrace=1 TEST_TIMEOUT_S=1800; \
	status=0; $(MAKE) --no-print-directory -j$(JOBS) MODE=asan run-tests || status=1; \
	tests/sanitizer-reports build/asan && exit $$status

tsan: deps-test ## programs with threads (tests/tsan) under ThreadSanitizer
	$(AGAIN) MODE=tsan run-tsan
# gcc's ThreadSanitizer does not start where addresses are randomised widely: switch that off where it is allowed.
run-tsan: $(call select,$(TSAN_BINS))
	@run=$$(setarch $(ARCH) -R true 2>/dev/null && echo setarch $(ARCH) -R); \
	TEST_TIMEOUT_S=1800 BUILD=$(B) TSAN_OPTIONS=halt_on_error=1 $$run tests/run-tests $^

# openssh-server is a service where there is an init: it is not among what `make test` installs, which skips tests/cluster
# without it.
.PHONY: deps-box soak run-soak
SOAK_FAULTS ?= 100
deps-box: ## what tests/cluster needs besides root
	@.ci/deps $(DEPS_BOX)
soak: deps ## SOAK_FAULTS (100) random faults in one job on a home cluster in a box (tests/cluster; root, `make deps-box`)
	$(AGAIN) run-soak
run-soak: $(B)/prima $(B)/tests/cluster/relay
	@BUILD=$(B) PRIMA=$(CURDIR)/$(B)/prima tests/cluster/box run tests/cluster/soak3.yaml -- \
	  tests/cluster/faults -n $(SOAK_FAULTS) --log $(B)/soak.log
.PHONY: streaming-check run-streaming-check
streaming-check: deps ## rings that read weights from throttled disks: time per token beside the plan's (root, `make deps-box`; minutes)
	$(AGAIN) run-streaming-check
run-streaming-check: $(B)/prima $(B)/tests/cluster/relay
	@BUILD=$(B) PRIMA=$(CURDIR)/$(B)/prima tests/cluster/streaming-check

.PHONY: portable
portable: ## compile everything for macOS and musl as well, with zig where there is one (ZIG=...)
	@tests/portable

.PHONY: pull-bench
pull-bench: prima ## 2 GiB from nginx: `prima pull` beside the curl command, peak memory (tests/pull; 2 minutes, 5 GB of disk)
	@BUILD=$(B) PRIMA=$(CURDIR)/$(B)/prima tests/pull/bench

fuzz: ## libFuzzer (clang) on each tests/fuzz/fuzz_*.c for FUZZ_SECONDS; T=substring selects
	@.ci/deps $(DEPS) $(DEPS_FUZZ)
	$(AGAIN) MODE=fuzz run-fuzz
run-fuzz: $(call select,$(FUZZ_BINS))
	@tests/fuzz/run $(FUZZ_SECONDS) $^

C_FILES = $(shell find src kernels net planner tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh')
lint: deps-lint ## formatting, cppcheck, who may include whom
	@clang-format --dry-run -Werror $(C_FILES)
	cppcheck -q -I. --std=c11 -D_GNU_SOURCE -j$(JOBS) --enable=warning,performance,portability --inline-suppr \
	  --error-exitcode=1 --suppress=missingIncludeSystem --suppress=invalidPointerCast --suppress=ctuuninitvar \
	  src kernels net planner
	tests/check-layers

# Programs of tests/gpu share a harness, and kernels of their own.
WITH_gpu := $(patsubst %.c,$(B)/%.o,$(patsubst %.cu,$(B)/%.cu.o,$(filter-out tests/gpu/test_%,$(wildcard tests/gpu/*.c tests/gpu/*.cu))))
define test_rule
$(B)/tests/$(1)/test_%: $(B)/tests/$(1)/test_%.o $(patsubst %.c,$(B)/%.o,$(wildcard tests/common/*.c)) $(WITH_$(1)) $(call archives,$(NEEDS_$(1)))
	$$(call say,LD,$$(CC) $$(CFLAGS) $$(LDFLAGS) -o $$@ $$^ $$(LDLIBS) $$(TEST_LIBS))
endef
$(foreach l,$(ALL_LAYERS) gpu,$(eval $(call test_rule,$(l))))

# What needs more than the layers below: engines, and the finished program.
$(addprefix $(B)/tests/gpu/test_,run models): $(B)/tests/gpu/test_%: $(B)/tests/gpu/test_%.o $(patsubst %.c,$(B)/%.o,$(wildcard tests/common/*.c)) $(WITH_gpu) $(call archives,$(NEEDS_cmd)) | $(B)/prima
	$(call say,LD,$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(TEST_LIBS))

# Plain programs: no Criterion. A fuzz entry gets libFuzzer's main in MODE=fuzz, elsewhere ours, which replays the corpus.
$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(if $(filter fuzz,$(MODE)),,$(B)/tests/fuzz/replay.o) $(call archives,$(ALL_LAYERS))
	$(call say,LD,$(CC) $(CFLAGS) $(if $(filter fuzz,$(MODE)),-fsanitize=fuzzer) $(LDFLAGS) -o $@ $^ $(LDLIBS))
$(B)/tests/tsan/%: $(B)/tests/tsan/%.o $(call archives,$(ALL_LAYERS))
	$(call say,LD,$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS))
$(B)/tests/gpu/tools/rates: $(B)/tests/gpu/tools/rates.o $(call archives,$(NEEDS_kernels))
	$(call say,LD,$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS))
$(B)/tests/cluster/relay: $(B)/tests/cluster/relay.o
	$(call say,LD,$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^)
$(B)/tests/pull/fault_server: $(patsubst %.c,$(B)/%.o,$(wildcard tests/pull/fault_*.c))
	$(call say,LD,$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^)
$(B)/tests/kernels/neon_check: $(B)/tests/kernels/neon_check.o $(call archives,$(NEEDS_kernels))
	$(call say,LD,$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lm)

# --- using it ------------------------------------------------------------------------------------
.PHONY: demo bench results plots
demo: deps ## set up, build, plan a ring of three devices on this machine, and answer the demo prompts with it
	$(AGAIN) prima
	@tests/demo.sh

bench: prima ## a quick look at this machine: products beside its limits, the 1.1B shape in Q4_K_M
	./prima bench kernels --types Q4_K,Q6_K,Q8_0,F16 --reps 20 -o build/bench
	./prima bench decode --synth llama-1.1b:q4_k_m -p 128 -n 32 -o build/bench
results: prima ## measure results/*.csv anew (about 20 minutes and 15 GB of disk for the synthetic models)
	rm -f results/decode.csv
	for model in llama-1.1b:q4_k_m llama-1.1b:q6_k llama-1.1b:q8_0 llama-1.1b:f16; do \
	  ./prima bench decode --synth $$model -t 1,$(JOBS) -p 128,512 -n 64 -o results && \
	  ./prima bench decode --synth $$model -t $(JOBS) -p 0 -n 32 --sequences 4,16 -o results || exit 1; done
	rm -f results/kernels.csv
	./prima bench kernels -o results
	./prima bench planner -o results
	./prima bench ring -o results
	./prima bench memory -o results
plots: deps-plots ## draw results/plots/*.svg from results/*.csv
	for plot in results/plots/*.gp; do gnuplot $$plot || exit 1; done

.PHONY: clean help
clean: ## remove everything that was built
	rm -rf build prima
help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
