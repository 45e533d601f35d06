"""The words of the demo shop: departments, categories, product types with synonyms, attribute values, brand syllables.

All invented or everyday words; no real brand. A product type is one line of `_TYPES`:
`department | category zh/en | zh synonyms | en synonyms | base price | family | complementary types (by first en synonym)`.
"""

import dataclasses
from typing import NamedTuple

_TYPES = """
clothing | 上装/Tops | T恤,短袖,短袖衫 | t-shirt,tee,short sleeve top | 89 | wear | jeans,sneakers
digital | 手机/Phones | 手机,智能手机 | phone,smartphone,mobile phone | 2599 | gadget | phone case,charger
home | 厨房/Kitchen | 炒锅,不粘锅,铁锅 | wok,frying pan,skillet | 159 | kitchen | knife,chopping board
beauty | 护肤/Skin Care | 面霜,保湿霜,乳霜 | face cream,moisturiser,moisturizer | 129 | care | cleanser,face mask
sports | 健身/Fitness | 瑜伽垫,健身垫 | yoga mat,exercise mat | 99 | sport | dumbbell,water bottle
bags | 鞋子/Shoes | 运动鞋,跑鞋,球鞋 | sneakers,trainers,running shoes | 399 | shoe | socks,backpack
kids | 玩具/Toys | 积木,拼装积木 | building blocks,toy bricks | 149 | toy | doll,puzzle
food | 零食/Snacks | 饼干,曲奇 | cookies,biscuits | 25 | food | tea,milk
clothing | 下装/Bottoms | 牛仔裤,丹宁裤 | jeans,denim pants,denim trousers | 199 | wear | belt,t-shirt
digital | 配件/Accessories | 手机壳,保护壳,手机套 | phone case,phone cover,protective case | 39 | gadget | phone,charger
home | 厨房/Kitchen | 菜刀,厨刀,刀具 | knife,chef's knife,kitchen knife | 129 | kitchen | chopping board,wok
beauty | 护肤/Skin Care | 洗面奶,洁面乳 | cleanser,face wash | 69 | care | face cream,face mask
sports | 健身/Fitness | 哑铃,手铃 | dumbbell,hand weight | 129 | sport | yoga mat,water bottle
bags | 背包/Bags | 双肩包,背包,书包 | backpack,rucksack,school bag | 229 | bag | sneakers,pencil case
kids | 玩具/Toys | 玩偶,娃娃,公仔 | doll,plush toy,stuffed toy | 79 | toy | building blocks,puzzle
food | 饮品/Drinks | 茶叶,绿茶,茗茶 | tea,green tea,loose tea | 88 | food | teapot,cookies
clothing | 上装/Tops | 衬衫,衬衣 | shirt,button-up,dress shirt | 169 | wear | trousers,tie
digital | 配件/Accessories | 充电器,充电头 | charger,power adapter | 69 | gadget | phone,power bank
home | 厨房/Kitchen | 砧板,菜板,切菜板 | chopping board,cutting board | 59 | kitchen | knife,wok
beauty | 护肤/Skin Care | 面膜,补水面膜 | face mask,sheet mask | 79 | care | face cream,cleanser
sports | 户外/Outdoor | 帐篷,露营帐篷 | tent,camping tent | 499 | sport | sleeping bag,flashlight
bags | 鞋子/Shoes | 靴子,短靴,马丁靴 | boots,ankle boots | 459 | shoe | socks,coat
kids | 玩具/Toys | 拼图,益智拼图 | puzzle,jigsaw | 49 | toy | building blocks,picture book
food | 饮品/Drinks | 咖啡,咖啡豆 | coffee,coffee beans | 78 | food | mug,cookies
clothing | 外套/Outerwear | 大衣,外套,风衣 | coat,overcoat,trench coat | 599 | wear | scarf,boots
digital | 音频/Audio | 耳机,蓝牙耳机,耳麦 | headphones,earphones,earbuds | 299 | gadget | phone,power bank
home | 餐具/Tableware | 马克杯,杯子,水杯 | mug,cup | 39 | kitchen | teapot,coffee
beauty | 彩妆/Make-up | 口红,唇膏 | lipstick,lip colour | 119 | shade | mascara,face powder
sports | 户外/Outdoor | 睡袋,露营睡袋 | sleeping bag,camping bag | 259 | sport | tent,flashlight
bags | 背包/Bags | 手提包,女包,手袋 | handbag,tote,purse | 359 | bag | scarf,wallet
kids | 文具/Stationery | 笔袋,文具盒 | pencil case,pen pouch | 29 | stationery | backpack,notebook
food | 零食/Snacks | 坚果,混合坚果 | nuts,mixed nuts | 59 | food | tea,dried fruit
clothing | 裙装/Dresses | 连衣裙,长裙 | dress,gown,maxi dress | 259 | wear | handbag,boots
digital | 配件/Accessories | 充电宝,移动电源 | power bank,portable battery | 129 | gadget | phone,headphones
home | 餐具/Tableware | 茶壶,泡茶壶 | teapot,tea kettle | 139 | kitchen | tea,mug
beauty | 彩妆/Make-up | 睫毛膏,睫毛液 | mascara,lash colour | 99 | shade | lipstick,eye shadow
sports | 运动配件/Gear | 运动水壶,水瓶 | water bottle,sports bottle | 69 | sport | yoga mat,sneakers
bags | 配饰/Small Goods | 钱包,皮夹 | wallet,billfold | 159 | bag | handbag,belt
kids | 童书/Books | 绘本,图画书 | picture book,storybook | 39 | stationery | puzzle,doll
food | 零食/Snacks | 果干,水果干 | dried fruit,fruit snack | 35 | food | nuts,tea
clothing | 下装/Bottoms | 休闲裤,长裤 | trousers,pants,slacks | 189 | wear | shirt,belt
digital | 电脑/Computers | 笔记本电脑,手提电脑 | laptop,notebook computer | 4999 | gadget | mouse,laptop bag
home | 床品/Bedding | 床单,床品套件 | bed sheet,bedding set | 229 | textile | pillow,quilt
beauty | 彩妆/Make-up | 眼影,眼影盘 | eye shadow,eyeshadow palette | 139 | shade | mascara,lipstick
sports | 户外/Outdoor | 手电筒,强光手电 | flashlight,torch | 89 | sport | tent,sleeping bag
bags | 配饰/Small Goods | 皮带,腰带 | belt,waist belt | 129 | bag | jeans,trousers
kids | 文具/Stationery | 笔记本,记事本 | notebook,journal | 25 | stationery | pencil case,fountain pen
food | 乳品/Dairy | 牛奶,鲜奶 | milk,fresh milk | 49 | food | cereal,cookies
clothing | 外套/Outerwear | 羽绒服,棉服 | down jacket,puffer jacket | 699 | wear | scarf,boots
digital | 电脑/Computers | 鼠标,无线鼠标 | mouse,wireless mouse | 89 | gadget | laptop,keyboard
home | 床品/Bedding | 枕头,枕芯 | pillow,bed pillow | 99 | textile | bed sheet,quilt
beauty | 彩妆/Make-up | 粉饼,散粉 | face powder,pressed powder | 109 | shade | lipstick,eye shadow
sports | 运动配件/Gear | 羽毛球拍,球拍 | badminton racket,racket | 199 | sport | shuttlecock,water bottle
bags | 鞋子/Shoes | 凉鞋,拖鞋 | sandals,slippers | 129 | shoe | sunglasses,dress
kids | 文具/Stationery | 钢笔,墨水笔 | fountain pen,ink pen | 99 | stationery | notebook,pencil case
food | 主食/Staples | 麦片,燕麦片 | cereal,oatmeal | 45 | food | milk,dried fruit
clothing | 配件/Extras | 围巾,披肩 | scarf,shawl | 99 | wear | coat,gloves
digital | 电脑/Computers | 键盘,机械键盘 | keyboard,mechanical keyboard | 299 | gadget | mouse,monitor
home | 床品/Bedding | 被子,棉被 | quilt,duvet | 299 | textile | bed sheet,pillow
beauty | 洗护/Hair and Body | 洗发水,香波 | shampoo,hair wash | 59 | care | conditioner,body wash
sports | 运动配件/Gear | 羽毛球,球 | shuttlecock,birdie | 49 | sport | badminton racket
bags | 配饰/Small Goods | 太阳镜,墨镜 | sunglasses,shades | 199 | bag | sandals,hat
kids | 婴儿/Baby | 奶瓶,婴儿奶瓶 | baby bottle,feeding bottle | 69 | baby | bib,baby wipes
food | 主食/Staples | 面条,挂面 | noodles,dried noodles | 19 | food | chilli sauce
clothing | 配件/Extras | 袜子,棉袜 | socks,crew socks | 29 | wear | sneakers,boots
digital | 电脑/Computers | 显示器,屏幕 | monitor,display,screen | 1299 | gadget | keyboard,mouse
home | 收纳/Storage | 收纳箱,储物箱 | storage box,storage bin | 59 | textile | hanger,laundry basket
beauty | 洗护/Hair and Body | 护发素,润发乳 | conditioner,hair conditioner | 59 | care | shampoo,body wash
sports | 骑行/Cycling | 自行车,单车 | bicycle,bike | 1299 | sport | helmet,bike lock
bags | 背包/Bags | 电脑包,公文包 | laptop bag,briefcase | 199 | bag | laptop,wallet
kids | 婴儿/Baby | 围兜,口水巾 | bib,baby bib | 29 | baby | baby bottle,baby wipes
food | 调料/Condiments | 辣椒酱,辣酱 | chilli sauce,hot sauce | 18 | food | noodles
clothing | 配件/Extras | 手套,保暖手套 | gloves,mittens | 59 | wear | scarf,down jacket
digital | 音频/Audio | 音箱,蓝牙音箱 | speaker,bluetooth speaker | 359 | gadget | phone,headphones
home | 收纳/Storage | 衣架,晾衣架 | hanger,clothes hanger | 29 | textile | storage box,laundry basket
beauty | 洗护/Hair and Body | 沐浴露,沐浴乳 | body wash,shower gel | 55 | care | shampoo,body lotion
sports | 骑行/Cycling | 头盔,骑行头盔 | helmet,bike helmet | 199 | sport | bicycle,bike lock
bags | 背包/Bags | 行李箱,拉杆箱,旅行箱 | suitcase,luggage,travel case | 459 | bag | neck pillow,backpack
kids | 婴儿/Baby | 湿巾,婴儿湿巾 | baby wipes,wet wipes | 25 | baby | bib,baby bottle
food | 调料/Condiments | 蜂蜜,土蜂蜜 | honey,raw honey | 68 | food | tea,cereal
clothing | 配件/Extras | 帽子,棒球帽 | hat,cap,baseball cap | 69 | wear | sunglasses,t-shirt
digital | 影像/Cameras | 相机,数码相机 | camera,digital camera | 3299 | gadget | tripod,memory card
home | 收纳/Storage | 脏衣篮,洗衣篮 | laundry basket,hamper | 69 | textile | hanger,storage box
beauty | 洗护/Hair and Body | 身体乳,润肤乳 | body lotion,body cream | 75 | care | body wash,hand cream
sports | 骑行/Cycling | 车锁,自行车锁 | bike lock,bicycle lock | 79 | sport | bicycle,helmet
bags | 旅行/Travel | 颈枕,U型枕 | neck pillow,travel pillow | 69 | bag | suitcase
kids | 玩具/Toys | 遥控车,玩具车 | toy car,remote control car | 129 | toy | building blocks
food | 零食/Snacks | 巧克力,黑巧 | chocolate,dark chocolate | 39 | food | coffee,nuts
clothing | 配件/Extras | 领带,男士领带 | tie,necktie | 89 | wear | shirt
digital | 影像/Cameras | 三脚架,脚架 | tripod,camera stand | 199 | gadget | camera,memory card
home | 灯具/Lighting | 台灯,护眼灯 | desk lamp,table lamp | 159 | textile | notebook
beauty | 护肤/Skin Care | 护手霜,手霜 | hand cream,hand lotion | 39 | care | body lotion
sports | 健身/Fitness | 跳绳,计数跳绳 | jump rope,skipping rope | 39 | sport | dumbbell,sneakers
digital | 影像/Cameras | 存储卡,内存卡 | memory card,sd card | 99 | gadget | camera
kids | 婴儿/Baby | 婴儿车,推车 | stroller,pushchair | 899 | baby | baby bottle,bib
food | 乳品/Dairy | 奶酪,芝士 | cheese,cheddar | 45 | food | milk,noodles
"""

DEPARTMENTS = {
    "clothing": "服饰/Clothing",
    "digital": "数码/Electronics",
    "home": "家居/Home",
    "beauty": "美妆/Beauty",
    "sports": "运动/Sports",
    "bags": "鞋包/Shoes and Bags",
    "kids": "母婴文具/Kids",
    "food": "食品/Food",
}


class Word(NamedTuple):
    """A value: canonical (English, as stored in attribute columns), and how a Chinese title says it."""

    en: str
    zh: str


@dataclasses.dataclass(frozen=True)
class ProductType:
    """One line of the lexicon."""

    name: str
    department: str
    category: str
    zh: tuple[str, ...]
    en: tuple[str, ...]
    price: float
    family: str
    complements: tuple[str, ...]

    @property
    def path(self) -> str:
        """Category path, bilingual: `服饰/Clothing > 上装/Tops > T恤/t-shirt`."""
        return f"{DEPARTMENTS[self.department]} > {self.category} > {self.zh[0]}/{self.en[0]}"


def _words(text: str) -> tuple[Word, ...]:
    return tuple(Word(*pair.split("=")) for pair in text.split(","))


def _parse(line: str) -> ProductType:
    department, category, zh, en, price, family, complements = (field.strip() for field in line.split("|"))
    english = tuple(en.split(","))
    return ProductType(
        english[0], department, category, tuple(zh.split(",")), english, float(price), family, tuple(complements.split(","))
    )


TYPES = tuple(_parse(line) for line in _TYPES.strip().splitlines())
"""In the order in which shops of growing size take them up: departments alternate."""

COLOURS = _words(
    "black=黑色,white=白色,blue=蓝色,red=红色,grey=灰色,green=绿色,pink=粉色,yellow=黄色,brown=棕色,purple=紫色,orange=橙色,beige=米色"
)
STYLES = _words("casual=休闲,classic=经典,vintage=复古,sporty=运动风,minimalist=简约,cute=可爱")
SEASONS = _words("spring=春季,summer=夏季,autumn=秋季,winter=冬季")
GENDERS = _words("women=女款,men=男款,unisex=中性")
COUNTRIES = _words("China=中国,Japan=日本,Germany=德国,France=法国,Italy=意大利,Canada=加拿大,Korea=韩国,Sweden=瑞典")

_CLOTH = "cotton=纯棉,linen=亚麻,wool=羊毛,polyester=涤纶,silk=真丝"
_MATERIALS = {
    "wear": _CLOTH,
    "shoe": "leather=真皮,canvas=帆布,mesh=网面,suede=绒面",
    "bag": "leather=真皮,canvas=帆布,nylon=尼龙,straw=草编",
    "gadget": "aluminium=铝合金,plastic=塑料,glass=玻璃,silicone=硅胶",
    "kitchen": "steel=不锈钢,wood=实木,bamboo=竹制,ceramic=陶瓷,glass=玻璃",
    "textile": "cotton=纯棉,wood=实木,bamboo=竹制,linen=亚麻,plastic=塑料",
    "sport": "rubber=橡胶,nylon=尼龙,aluminium=铝合金,carbon=碳纤维",
    "toy": "wood=实木,plastic=塑料,plush=毛绒",
    "stationery": "paper=纸质,canvas=帆布,leather=真皮",
    "baby": "cotton=纯棉,silicone=硅胶,glass=玻璃",
    "care": "aloe=芦荟,rose=玫瑰,tea tree=茶树,oat=燕麦",
    "shade": "matte=哑光,glossy=水光,shimmer=珠光",
    "food": "original=原味,spicy=香辣,sweet=甜味,sugar free=无糖,organic=有机",
}
MATERIALS = {family: _words(text) for family, text in _MATERIALS.items()}
"""Material, active ingredient, finish or flavour: what a product of a family is made of."""

_SIZES = {
    "wear": "S,M,L,XL",
    "shoe": "36,38,40,42,44",
    "bag": "10L,20L,30L",
    "gadget": "64GB,128GB,256GB",
    "kitchen": "20cm,24cm,28cm,32cm",
    "textile": "1.2m,1.5m,1.8m",
    "sport": "1kg,2kg,5kg",
    "toy": "50 pcs,100 pcs,200 pcs",
    "stationery": "A4,A5,A6",
    "baby": "120ml,240ml,330ml",
    "care": "50ml,100ml,200ml,500ml",
    "shade": "3g,5g,8g",
    "food": "100g,250g,500g,1kg",
}
SIZES = {family: _words(",".join(f"{size}={size}" for size in text.split(","))) for family, text in _SIZES.items()}

GENDERED = {"wear", "shoe", "bag", "care", "sport"}
SEASONAL = {"wear", "shoe", "textile"}
COLOURLESS = {"care", "food"}

ADJECTIVES = _words("new=新款,premium=高端,popular=热销,everyday=日常,lightweight=轻便,durable=耐用,gift=送礼,comfortable=舒适")

_BRAND_EN = (
    "lu ve ka no mi so ra ti el zo be fa ju or ni qua sha wen xi yo",
    "mo li ra ne to va si du ke lo mi na po ri ta vo ze ga he jo",
)
_BRAND_EN_END = "ra na x s lle n ta ko th ri o wa lin mar ven"
_BRAND_ZH = (
    "云 青 山 海 星 晨 林 木 禾 溪 澄 若 初 南 北 知 白 墨 语 安",
    "朵 禾 岚 屿 野 曦 川 雀 微 舟 影 谷 里 汀 屋 言 石 桥 町 歌",
)
_BRAND_ZH_END = "坊 记 社 家 物 集 选 工 堂 园 居 品 季 匠 铺"
BRAND_EN = tuple(tuple(text.split()) for text in (*_BRAND_EN, _BRAND_EN_END))
BRAND_ZH = tuple(tuple(text.split()) for text in (*_BRAND_ZH, _BRAND_ZH_END))
"""Syllables of invented brand names; brand number n is built from the same places in both languages."""

HOMOPHONES = {
    "鞋": ("协", "xie"),
    "裤": ("库", "ku"),
    "裙": ("群", "qun"),
    "衫": ("山", "shan"),
    "恤": ("须", "xu"),
    "机": ("级", "ji"),
    "包": ("苞", "bao"),
    "霜": ("双", "shuang"),
    "膜": ("模", "mo"),
    "红": ("洪", "hong"),
    "蓝": ("兰", "lan"),
    "黑": ("嘿", "hei"),
    "白": ("百", "bai"),
    "绿": ("率", "lv"),
    "锅": ("郭", "guo"),
    "杯": ("背", "bei"),
    "壶": ("胡", "hu"),
    "茶": ("查", "cha"),
    "棉": ("绵", "mian"),
    "奶": ("乃", "nai"),
    "垫": ("店", "dian"),
    "刀": ("到", "dao"),
    "板": ("版", "ban"),
    "袜": ("瓦", "wa"),
    "帽": ("冒", "mao"),
    "巾": ("斤", "jin"),
    "枕": ("诊", "zhen"),
    "被": ("贝", "bei"),
    "灯": ("登", "deng"),
    "饼": ("丙", "bing"),
    "果": ("裹", "guo"),
    "水": ("谁", "shui"),
    "车": ("撤", "che"),
    "笔": ("比", "bi"),
    "箱": ("香", "xiang"),
    "器": ("气", "qi"),
    "手": ("守", "shou"),
    "休": ("修", "xiu"),
    "色": ("涩", "se"),
    "款": ("宽", "kuan"),
}
"""Character → (one that sounds or looks alike, its pinyin): how Chinese queries are misspelt."""
