/* startup - from reset to main and back on an ARM MPS2 board with the AN386 image (Cortex-M4F), as
   QEMU models it. Text leaves by semihosting, a debugger's service that QEMU provides; a board of
   your own would write to its UART here. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[], stack_start[], stack_end[];

int main(void);
bool board_write(int where, const char *text, size_t size);
void reset(void);
void fault(void);

/* ---- Semihosting (ARM IHI 0059): operation in r0, argument in r1, result in r0 ---- */

enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_EXIT = 0x18, EXIT_DONE = 0x20026, EXIT_ERROR = 0x20023 };

static uint32_t semihost(uint32_t operation, uintptr_t argument) {
    register uint32_t r0 __asm__("r0") = operation;
    register uintptr_t r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}
/* where: 1 is stdout, 2 is stderr. ":tt" opened for writing is the first, for appending the second. */
bool board_write(int where, const char *text, size_t size) {
    static uintptr_t handles[3];        /* plus one, so that 0 is: not open yet */
    if (!handles[where]) {
        uintptr_t open[3] = { (uintptr_t)":tt", where == 1 ? 4 : 8, 3 };
        handles[where] = semihost(SYS_OPEN, (uintptr_t)open) + 1;
    }
    uintptr_t write[3] = { handles[where] - 1, (uintptr_t)text, size };
    return semihost(SYS_WRITE, (uintptr_t)write) == 0;     /* the number of bytes not written */
}

/* ---- The stack: its deepest use shows in what remains of the pattern ---- */

#define PATTERN 0x57acc57au

static void put_number(uint32_t v) {
    char digits[10], *p = digits + sizeof digits;
    do *--p = (char)('0' + v % 10); while (v /= 10);
    board_write(2, p, (size_t)(digits + sizeof digits - p));
}
static void report_stack(void) {
    const uint32_t *p = stack_start;
    while (p < stack_end && *p == PATTERN) p++;
    board_write(2, "stack     ", 10);
    put_number((uint32_t)((uintptr_t)stack_end - (uintptr_t)p));
    board_write(2, " bytes of ", 10);
    put_number((uint32_t)((uintptr_t)stack_end - (uintptr_t)stack_start));
    board_write(2, "\n", 1);
}

/* ---- Reset and faults ---- */

static void stop(uint32_t reason) {
    for (;;) semihost(SYS_EXIT, reason);
}
/* The stack pointer may be of no use by now, so it starts again. */
__attribute__((naked)) void fault(void) {
    __asm__ volatile("ldr sp, =stack_end\n b report_fault\n");
}
__attribute__((used)) static void report_fault(void) {
    board_write(2, "firmware: fault\n", 16);
    stop(EXIT_ERROR);
}
static void set_register(uintptr_t address, uint32_t v) { *(volatile uint32_t *)address = v; }

/* The FPU is on; and the stack, which lies at the bottom of RAM, has 64 MiB below it that nobody may
   touch, so that growing too deep is a fault. */
static void set_processor(void) {
    set_register(0xe000ed88, 0xfu << 20);                   /* CPACR: full access to CP10 and CP11 */
    set_register(0xe000ed98, 0);                            /* MPU_RNR: region 0 */
    set_register(0xe000ed9c, 0x1c000000);                   /* MPU_RBAR: its start */
    set_register(0xe000eda0, 1u << 28 | 25u << 1 | 1);      /* MPU_RASR: no execution, no access, 2^26 bytes, on */
    set_register(0xe000ed94, 5);                            /* MPU_CTRL: on, the default map elsewhere */
    __asm__ volatile("dsb\n isb" : : : "memory");
}
void reset(void) {
    set_processor();
    const uint32_t *from = data_load;
    for (uint32_t *p = data_start; p < data_end;) *p++ = *from++;
    for (uint32_t *p = bss_start; p < bss_end;) *p++ = 0;
    for (volatile uint32_t *p = stack_start; p < (uint32_t *)__builtin_frame_address(0) - 64; p++) *p = PATTERN;
    int status = main();
    report_stack();
    stop(status == 0 ? EXIT_DONE : EXIT_ERROR);
}

__attribute__((section(".vectors"), used)) static const struct { void *stack; void (*run[15])(void); } vectors = {
    stack_end, { reset, fault, fault, fault, fault, fault, NULL, NULL, NULL, NULL, fault, fault, NULL, fault, fault }
};
