# `make help` lists the targets. CC, CXX, CFLAGS, LDFLAGS, PREFIX and DESTDIR are respected.

CFLAGS  = -O2
PREFIX  = /usr/local
LDLIBS  = -lm -pthread
JOBS    = 2
BUILD   = build
MODEL   = examples/models/stories-q8_0.gguf

# make OPENBLAS=1
BLAS_1      = -DTFM_USE_OPENBLAS
BLAS_LIBS_1 = -lopenblas

COMPILE  = $(CC) $(CFLAGS) -I. $(BLAS_$(OPENBLAS)) $(LDFLAGS)
LIBS     = $(BLAS_LIBS_$(OPENBLAS)) $(LDLIBS)
PROGRAMS = $(BUILD)/generate $(BUILD)/evaluate $(BUILD)/tokenize $(BUILD)/inspect $(BUILD)/quantize \
           $(BUILD)/bench $(BUILD)/c_array $(BUILD)/attention $(BUILD)/layers $(BUILD)/chat
SHARED   = tfm.h $(BUILD)/flags
TOOL     = $(SHARED) tools/cli.h

all: $(PROGRAMS)

help:
	@echo "make           build all programs into $(BUILD)/"
	@echo "make run       write text with the shipped model"
	@echo "make test      run the tests"
	@echo "make check     compilers, sanitizers, valgrind, one answer from all builds, firmware"
	@echo "make bench     time models, ops and the machine for some five minutes, as tables"
	@echo "make bench-svg draw what make bench measured into docs/bench.svg"
	@echo "make firmware  build and run examples/firmware.c for the host and for a Cortex-M4F"
	@echo "make size      bytes of code per set of features"
	@echo "make install   tfm.h and tfm.pc below PREFIX ($(PREFIX))"
	@echo "make clean     remove $(BUILD)/"
	@echo "OPENBLAS=1     with any of them: large f32 products by OpenBLAS"

# Changes when the compiler or its flags do, so that all is built again then.
$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD)
	@echo "$(COMPILE) $(LIBS)" | cmp -s - $@ || echo "$(COMPILE) $(LIBS)" > $@
FORCE:

$(BUILD)/generate: examples/generate.c $(TOOL)
	$(COMPILE) examples/generate.c -o $@ $(LIBS)
$(BUILD)/chat: examples/chat.c $(TOOL)
	$(COMPILE) examples/chat.c -o $@ $(LIBS)
$(BUILD)/evaluate: tools/evaluate.c $(TOOL)
	$(COMPILE) tools/evaluate.c -o $@ $(LIBS)
$(BUILD)/tokenize: tools/tokenize.c $(TOOL)
	$(COMPILE) tools/tokenize.c -o $@ $(LIBS)
$(BUILD)/inspect: tools/inspect.c $(TOOL)
	$(COMPILE) tools/inspect.c -o $@ $(LIBS)
$(BUILD)/quantize: tools/quantize.c tools/gguf_write.h tools/gguf_choose.h $(TOOL)
	$(COMPILE) tools/quantize.c -o $@ $(LIBS)
$(BUILD)/bench: tools/bench.c tools/bench_ops.h tools/machine.h tools/random_model.h tools/table.h tools/gguf_write.h \
                tools/gguf_choose.h $(TOOL)
	$(COMPILE) tools/bench.c -o $@ $(LIBS)
$(BUILD)/c_array: tools/c_array.c $(BUILD)/flags
	$(COMPILE) tools/c_array.c -o $@
$(BUILD)/attention: examples/attention.c $(SHARED)
	$(COMPILE) examples/attention.c -o $@ $(LIBS)
$(BUILD)/layers: examples/layers.c $(SHARED)
	$(COMPILE) examples/layers.c -o $@ $(LIBS)

run: $(BUILD)/generate
	$(BUILD)/generate $(MODEL) -p "Once upon a time" -n 180 -s 7 --echo

# ---- Speed ----

SMOLLM       = smollm-135m:F16,smollm-135m:Q8_0,smollm-135m:Q6_K,smollm-135m:Q4_K_M,smollm-135m:Q4_0
BENCH_MODELS = stories15m:F32,$(SMOLLM),qwen3-0.6b:Q8_0,tinyllama-1.1b:Q4_0
BENCHED      = $(BUILD)/bench-ops.json $(BUILD)/bench-models.json

bench: $(BUILD)/bench
	@$(BUILD)/bench --machine --md
	@echo
	@$(BUILD)/bench --ops --limit 5 --md --save $(BUILD)/bench-ops.json
	@echo
	@$(BUILD)/bench --random $(BENCH_MODELS) -p 128 -n 32 --limit 5 --md --save $(BUILD)/bench-models.json
$(BENCHED):
	@$(MAKE) bench
bench-svg: $(BENCHED)
	mkdir -p docs
	python3 tools/bench_svg.py docs/bench.svg $(BENCHED)

# ---- Tests: one runner, linked with one object of the header; then the programs from outside ----

$(BUILD)/tests_list.h: tests $(BUILD)/flags
	@for f in tests/test_*.c; do n=$${f#tests/test_}; echo "SUBJECT($${n%.c})"; done > $@
$(BUILD)/tfm.o: tests/tfm_impl.c $(SHARED)
	$(COMPILE) -c tests/tfm_impl.c -o $@
$(BUILD)/tests: tests/*.c tests/*.h tools/gguf_write.h $(BUILD)/tests_list.h $(BUILD)/tfm.o
	$(COMPILE) -Itools -I$(BUILD) tests/main.c tests/test_*.c $(BUILD)/tfm.o -o $@ $(LIBS)
$(BUILD)/poke: tests/poke.c $(BUILD)/flags
	$(COMPILE) tests/poke.c -o $@

testing: $(PROGRAMS) $(BUILD)/tests $(BUILD)/poke
test:
	@$(MAKE) -j $(JOBS) testing
	@sh tests/sum.sh "$(BUILD)/tests" "sh tests/cli.sh $(BUILD)"

check: all
	@sh tests/check.sh $(BUILD)

# ---- Firmware: one file for the host and for a Cortex-M4F under QEMU ----

ARM      = arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 -Os -fno-math-errno
ARM_LINK = -nostartfiles --specs=nano.specs -T examples/firmware/mps2-an386.ld
ARM_RUN  = qemu-system-arm -M mps2-an386 -nographic -semihosting-config enable=on,target=native
FLASH    = $(BUILD)/firmware_model.h
FIRMWARE = examples/firmware.c examples/firmware/* $(FLASH)

$(FLASH): $(BUILD)/c_array examples/models/tiny-q8_0.gguf
	$(BUILD)/c_array examples/models/tiny-q8_0.gguf firmware_model > $@.part
	mv $@.part $@
$(BUILD)/firmware-host: $(FIRMWARE) $(SHARED)
	$(COMPILE) -DFIRMWARE_MODEL='"$(FLASH)"' examples/firmware.c -o $@ $(LIBS)
$(BUILD)/firmware-arm.elf: $(FIRMWARE) $(SHARED)
	$(ARM) -I. -DFIRMWARE_BOARD -DFIRMWARE_MODEL='"$(FLASH)"' examples/firmware.c examples/firmware/startup.c \
	    $(ARM_LINK) -o $@ -lm
firmware: $(BUILD)/firmware-host
	$(BUILD)/firmware-host > $(BUILD)/firmware-host.txt
	@cat $(BUILD)/firmware-host.txt
	@if command -v arm-none-eabi-gcc > /dev/null && command -v qemu-system-arm > /dev/null; then \
	    $(MAKE) $(BUILD)/firmware-arm.elf && \
	    $(ARM_RUN) -kernel $(BUILD)/firmware-arm.elf < /dev/null > $(BUILD)/firmware-arm.txt && \
	    cmp $(BUILD)/firmware-host.txt $(BUILD)/firmware-arm.txt && echo "Cortex-M4F: the same output"; \
	else echo "Cortex-M4F: skipped, it needs arm-none-eabi-gcc and qemu-system-arm"; fi

size:
	@mkdir -p $(BUILD)
	@CC="$(CC)" sh tools/size.sh $(BUILD)

install:
	mkdir -p "$(DESTDIR)$(PREFIX)/include" "$(DESTDIR)$(PREFIX)/lib/pkgconfig"
	cp tfm.h "$(DESTDIR)$(PREFIX)/include/tfm.h"
	printf '%s\n' "prefix=$(PREFIX)" 'includedir=$${prefix}/include' '' 'Name: tfm' \
	    'Description: tensors and transformer inference in one C11 header' \
	    "Version: $$(sed -n 's/^#define TFM_VERSION "\(.*\)"/\1/p' tfm.h)" \
	    'Cflags: -I$${includedir}' 'Libs: $(LDLIBS)' > "$(DESTDIR)$(PREFIX)/lib/pkgconfig/tfm.pc"

clean:
	rm -rf $(BUILD)

.PHONY: all help run bench bench-svg testing test check firmware size install clean FORCE
