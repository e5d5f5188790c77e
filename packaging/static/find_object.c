/* GCC's unwinder, built for glibc 2.35 and later, asks the C library for the unwind table of the code at an address by
 * _dl_find_object. musl has no such function; a static program's only object is easily found. Layout and meaning: glibc's
 * manual, "Dynamic Linker Introspection". */
#include <link.h>
#include <stddef.h>

struct dl_find_object {
    unsigned long long flags;
    void *map_start;
    void *map_end;
    struct link_map *link_map;
    void *eh_frame;
    unsigned long long reserved[7];
};

struct question {
    const char *pc;
    struct dl_find_object *found;
    int answered;
};

static int look(struct dl_phdr_info *object, size_t size, void *data)
{
    struct question *asked = data;
    char *start = NULL, *end = NULL, *table = NULL;
    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        char *at = (char *)(object->dlpi_addr + part->p_vaddr);
        if (part->p_type == PT_GNU_EH_FRAME)
            table = at;
        if (part->p_type == PT_LOAD && asked->pc >= at && asked->pc < at + part->p_memsz) {
            start = at;
            end = at + part->p_memsz;
        }
    }
    if (!table || !start)
        return 0;
    asked->found->flags = 0;
    asked->found->map_start = start;
    asked->found->map_end = end;
    asked->found->link_map = NULL;
    asked->found->eh_frame = table;
    asked->answered = 1;
    return 1;
}

int _dl_find_object(void *pc, struct dl_find_object *found)
{
    struct question asked = { pc, found, 0 };
    dl_iterate_phdr(look, &asked);
    return asked.answered ? 0 : -1;
}
